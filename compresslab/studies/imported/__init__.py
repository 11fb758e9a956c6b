"""Studies of models that were evaluated elsewhere: lm-eval's own files of results and samples. No model is run here."""
