"""Backends that run a model, and the one decoder that drives them."""
