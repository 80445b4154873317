"""Readers of labelled data, one module a data set, and the driving world; see README.md."""
