"""Training, evaluation and export; run from the checkout. Imports the runtime, never the reverse."""
