"""Data recipes: what a labelled picture becomes in each domain. `conversation` says what flows, docs/recipes.md the rest."""
