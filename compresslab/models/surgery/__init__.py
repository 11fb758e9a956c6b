"""Changes to the parts of a model in memory: layers and neurons that go, scales that move into another layer."""
