"""The paper's two driving tables on the driving world: what changes when only the *form* of coordinates changes (docs/tables.md).

`frames`: pictures at the model's size with their labels, and what a frozen tower makes of them, computed once. `forms`: how a
lane's points are written (text, bins, grid tokens, grid tokens with offsets). `lanes`, `regions`: the conversations of tables 5
and 4. `reader`: a fresh decoder that reads the frozen tower's tokens. `runs`: training, with `training.sft`'s own trainer.
`answers`: greedy answers, free or under the runtime's grammar. `scores`, `table`: numbers and intervals.
"""
