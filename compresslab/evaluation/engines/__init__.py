"""Engines: functions that answer requests with a model. Each is exact for the architectures that it supports."""
