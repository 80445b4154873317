"""Tokens: the table, the codec between coordinates and tokens, the canonical text, the grammar and the prompts."""
