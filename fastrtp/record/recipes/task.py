"""Recipes of include/trace/events/task.h."""

from __future__ import annotations

from .recipe import Obj, Recipe, Scalar, Text, Tgid, task

_SIGNAL = Obj("signal_struct", Tgid("pid"), {"oom_score_adj": "oom_score_adj"})

RECIPES = {
    "task_newtask": Recipe((task("pid", comm="comm", signal=_SIGNAL), Scalar("unsigned long", "clone_flags"))),
    "task_rename": Recipe(
        (task("pid", comm="oldcomm", signal=_SIGNAL), Text("newcomm")),
        after=(task("pid", comm="newcomm"),),
    ),
}
