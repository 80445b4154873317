"""Evaluation of the tasks that are asked with a prompt of their own: classification, rec, res, gres, reason, caption, pointing.

Sample -> queries (what is asked, and what is right) -> asking (a model's answers) or answers (anybody's, from a file) -> scoring
"""

TASKS = ("classification", "rec", "res", "gres", "reason", "caption", "pointing")
