"""Recipes of include/trace/events/irq.h."""

from __future__ import annotations

from .recipe import Key, Obj, Raw, Recipe, Scalar, Text, by_pointer

_VECTOR = Recipe((Scalar("unsigned int", "vec", name="vec_nr"),))
_TASKLET = Recipe((by_pointer("tasklet_struct", "tasklet", func="func"), Raw("func")))

RECIPES = {
    "irq_handler_entry": Recipe((Scalar("int", "irq"), Obj("irqaction", Key(("irq",)), {"irq": "irq", "name": Text("name")}))),
    "irq_handler_exit": Recipe((Scalar("int", "irq"), Obj("irqaction", Key(("irq",)), {"irq": "irq"}), Scalar("int", "ret"))),
    "softirq_entry": _VECTOR,
    "softirq_exit": _VECTOR,
    "softirq_raise": _VECTOR,
    "tasklet_entry": _TASKLET,
    "tasklet_exit": _TASKLET,
}
