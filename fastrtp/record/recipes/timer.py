"""Recipes of include/trace/events/timer.h."""

from __future__ import annotations

from .recipe import Key, Obj, PerCpu, Recipe, Scalar, by_pointer

_TIMER = Recipe((by_pointer("timer_list", "timer"),))
_HRTIMER = Recipe((by_pointer("hrtimer", "hrtimer"),))

RECIPES = {
    "timer_init": _TIMER,
    "timer_start": Recipe(
        (
            by_pointer("timer_list", "timer", function="function", expires="expires", flags="flags"),
            Scalar("unsigned long", "expires"),
            Scalar("unsigned int", "flags"),
        )
    ),
    "timer_expire_entry": Recipe((by_pointer("timer_list", "timer", function="function"), Scalar("unsigned long", "baseclk"))),
    "timer_expire_exit": _TIMER,
    "timer_cancel": _TIMER,
    "hrtimer_init": Recipe((by_pointer("hrtimer", "hrtimer"), Scalar("clockid_t", "clockid"), Scalar("enum", "mode"))),
    "hrtimer_start": Recipe(
        (
            Obj(
                "hrtimer",
                Key(("hrtimer",)),
                {"function": "function", "node.expires": "expires", "_softexpires": "softexpires"},
            ),
            Scalar("enum", "mode"),
            Scalar("bool", "was_armed"),
        )
    ),
    "hrtimer_expire_entry": Recipe(
        (by_pointer("hrtimer", "hrtimer", function="function"), Obj("ktime_t", PerCpu(), {"": "now"}))
    ),
    "hrtimer_expire_exit": _HRTIMER,
    "hrtimer_cancel": _HRTIMER,
    "itimer_state": Recipe(
        (
            Scalar("int", "which"),
            Obj(
                "itimerspec64",
                PerCpu(),
                {
                    "it_value.tv_sec": "value_sec",
                    "it_value.tv_nsec": "value_nsec",
                    "it_interval.tv_sec": "interval_sec",
                    "it_interval.tv_nsec": "interval_nsec",
                },
            ),
            Scalar("unsigned long long", "expires"),
        )
    ),
    "itimer_expire": Recipe(
        (
            Scalar("int", "which"),
            Obj("pid", Key(("pid",)), {"numbers[0].nr": "pid"}, nullable=True),
            Scalar("unsigned long long", "now"),
        )
    ),
    "tick_stop": Recipe((Scalar("int", "success"), Scalar("int", "dependency"))),
}
