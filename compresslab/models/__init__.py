"""Models and text: where they come from, how they are saved, what they weigh."""
