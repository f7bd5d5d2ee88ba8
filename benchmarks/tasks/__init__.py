"""Classification tasks with a tie between class and confounder, for the benchmarks: real digits, clothes, reviews.

Each task makes one pool of rows per split, with every pair of class and confounder in it, and the frozen features of a
pretrained network. A run then draws rows from the pools at the tie that it wants: features are computed once.
"""

from tasks.pool import Pool, Run, Task, draw
from tasks.registry import TASKS, tasks_named


__all__ = ["TASKS", "Pool", "Run", "Task", "draw", "tasks_named"]
