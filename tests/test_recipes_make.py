"""Recipes out of a kernel's source: what TP_fast_assign says, turned around; and what the shipped files say of real formats."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
import zstandard

from fastrtp.btf import tracepoints
from fastrtp.btf.load import default_btf, load_btf
from fastrtp.errors import RecordingError
from fastrtp.record.event_format import parse_event_format
from fastrtp.record.invert.cexpr import CSyntaxError, parse, text_of, value_of
from fastrtp.record.invert.cpp import Preprocessor
from fastrtp.record.invert.make import make
from fastrtp.record.invert.tokens import joined, tokenize
from fastrtp.record.invert.write import content, report
from fastrtp.record.recipes import data
from fastrtp.record.recipes.choose import choose

SHARED = Path(__file__).resolve().parents[2] / "shared"

HEADER = """
#undef TRACE_SYSTEM
#define TRACE_SYSTEM sample
#if !defined(_TRACE_SAMPLE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_SAMPLE_H
#include <linux/tracepoint.h>
#define BOTH_ENTRY __field(int, a) __field(int, b)
#define BOTH_ASSIGN(t) __entry->a = t->a; __entry->b = t->b

DECLARE_EVENT_CLASS(sample,
	TP_PROTO(struct thing *t, int %(arg)s),
	TP_ARGS(t, %(arg)s),
	TP_STRUCT__entry(%(entry)s),
	TP_fast_assign(%(assign)s),
	TP_printk("%%d", 1)
);
DEFINE_EVENT(sample, sample_one, TP_PROTO(struct thing *t, int %(arg)s), TP_ARGS(t, %(arg)s));
DEFINE_EVENT_PRINT(sample, sample_two, TP_PROTO(struct thing *u, int v), TP_ARGS(u, v), TP_printk("%%d", 2));
#endif
#include <trace/define_trace.h>
"""
INCLUDED = """
#define FLAG_BIG 0x10
#define t_port inner.common.port
enum colour { RED, GREEN = 4, BLUE };
static inline unsigned int thing_sectors(const struct thing *t)
{
	return t->bytes >> 9;
}
static inline struct part *thing_part(struct thing *t)
{
	struct other *o = t->other;

	return o->part;
}
"""


@pytest.fixture
def tree(tmp_path):
    """A function that makes a source tree with one event class of the given entry and assignments."""

    def build(entry: str, assign: str, arg: str = "v"):
        events = tmp_path / "include/trace/events"
        events.mkdir(parents=True, exist_ok=True)
        (tmp_path / "include/linux").mkdir(exist_ok=True)
        (tmp_path / "include/linux/thing.h").write_text(INCLUDED)
        (tmp_path / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 99\nSUBLEVEL = 3\n")
        (events / "sample.h").write_text(HEADER % {"entry": entry, "assign": assign, "arg": arg})
        return make(tmp_path)

    return build


def told(made):
    (result,) = made.unique()
    return {item.entry.name: [one.text() for part in item.told.values() for one in part] for item in result.fields}


# one assignment a row: what the field is made from, what it tells
ASSIGNMENTS = [
    ("t->len", ["t->len"]),
    ("(u32)t->sub.len", ["t->sub.len"]),
    ("t", ["t"]),
    ("v", ["v"]),
    ("t->x ? t->x->y : 0", ["t->x->y|null t->x 0"]),
    ("t->x == NULL ? -1 : t->x->y", ["t->x->y|null t->x -1"]),
    ("t->a ?: 7", ["t->a|null t->a 7"]),
    ("t->len >> 9", ["t->len|<<9"]),
    ("(t->len << 4) + 3", ["t->len|-3|>>4"]),
    ("5 - t->len", ["t->len|neg|+5"]),
    ("t->flags & 0xff", ["t->flags|mask 0xff"]),
    ("!!(t->flags & FLAG_BIG)", ["t->flags|true 1|*16|mask 0x10"]),
    ("!t->x", ["t->x|true 0"]),
    ("v ? 2 : 1", ["v|true 2"]),
    ("(v ? 2 : 1) | 4", ["v|true 6"]),
    ("t->colour == BLUE", ["t->colour|is 1 5"]),
    ("(t->high << 20) | t->low", ["t->high|>>20", "t->low|and 0xfffff"]),
    ("MKDEV(t->major, t->minor)", ["t->major|>>20", "t->minor|and 0xfffff"]),
    ("ntohs(t->t_port)", ["t->inner.common.port|swap16"]),
    ("thing_sectors(t)", ["t->bytes|<<9"]),
    ("thing_part(t)->start", ["t->other@other->part->start"]),
    ("tcp_sk(t)->snd_una", ["t@tcp_sock->snd_una"]),
    ("container_of(t, struct big, inner)->size", ["t@-big.inner->size"]),
    ("page_to_pfn(t->page)", ["t->page|id pfn|null t->page -1"]),
    ("t->list[3]", ["t->list[3]"]),
    ("*t->where", ["t->where[0]"]),
    ("test_bit(3, &t->bits)", ["t->bits|true 1|*8|mask 0x8"]),
    ("atomic_read(&t->users)", ["t->users.counter"]),
    ("({ struct part *p = thing_part(t); p->end; })", ["t->other@other->part@part->end"]),
    ("42", []),
    ("smp_processor_id()", []),
]


@pytest.mark.parametrize(("expression", "expected"), ASSIGNMENTS, ids=[row[0] for row in ASSIGNMENTS])
def test_a_field_tells_what_it_was_made_from(tree, expression, expected):
    made = tree("__field(u64, f)", f"__entry->f = {expression};")

    assert told(made) == {"f": expected}


STATEMENTS = {
    "a local variable": (
        "__field(int, f)", "struct part *p = t->part; int n = p->n; __entry->f = n;", {"f": ["t->part@part->n"]}
    ),
    "branches": (
        "__field(int, f)", "if (t->part) __entry->f = t->part->n; else { __entry->f = 0; }", {"f": ["t->part->n|null t->part 0"]}
    ),
    "a branch on a recorded field": (
        "__field(int, kind) __field(int, f)",
        "__entry->kind = t->kind; if (t->kind == 2) __entry->f = t->two; else __entry->f = t->other;",
        {"kind": ["t->kind"], "f": ["t->two|if kind==2", "t->other|if kind!=2"]},
    ),
    "a sum with a recorded field": (
        "__field(int, start) __field(int, end)",
        "__entry->start = t->start; __entry->end = t->start + t->size;",
        {"start": ["t->start"], "end": ["t->size|-@start"]},
    ),
    "a string, two arguments": ("__string(s, t->name)", "__assign_str(s, t->name);", {"s": ["t->name"]}),
    "a string, one argument": ("__string(s, t->name)", "__assign_str(s);", {"s": ["t->name"]}),
    "a string with a word for none": (
        '__string(s, t->dev ? t->dev->name : "none")', "__assign_str(s);", {"s": ['t->dev->name|null t->dev "none"']}
    ),
    "bytes": ("__array(char, c, 16)", "memcpy(__entry->c, t->comm, 16);", {"c": ["t->comm"]}),
    "an array in a loop": (
        "__array(u32, a, 4)", "int i; for (i = 0; i < 4; i++) __entry->a[i] = t->list[i];", {"a": ["t->list[]"]}
    ),
    "a pointer into the entry": (
        "__array(u8, addr, 4)", "__be32 *p = (__be32 *)__entry->addr; *p = t->saddr;", {"addr": ["t->saddr"]}
    ),
    "a struct seen in the entry": (
        "__array(u8, addr, 16)", "struct sockaddr_in *in = (void *)__entry->addr; in->sin_port = t->port;", {"addr": ["t->port"]}
    ),
    "macros of the header": ("BOTH_ENTRY", "BOTH_ASSIGN(t);", {"a": ["t->a"], "b": ["t->b"]}),
    "the entry read again": ("__field(int, a) __field(int, b)", "__entry->a = t->a; __entry->b = __entry->a << 1;",
                             {"a": ["t->a"], "b": ["t->a|>>1"]}),
}  # fmt: skip


@pytest.mark.parametrize("case", STATEMENTS.values(), ids=STATEMENTS)
def test_statements_are_followed(tree, case):
    entry, assign, expected = case

    assert told(tree(entry, assign)) == expected


def test_what_cannot_be_turned_around_is_left_with_its_expression(tree):
    made = tree("__field(u64, f) __field(int, g)", "__entry->f = hash_of(t->a, t->b); __entry->g = t->c * t->d;")

    (result,) = made.unique()
    assert {item.entry.name: item.why[""] for item in result.fields} == {"f": "hash_of(t->a, t->b)", "g": "t->c * t->d"}
    assert [line.split(": ", 1)[1] for line in report(made)][-2:] == [
        "sample: f = hash_of(t->a, t->b)",
        "sample: g = t->c * t->d",
    ]
    assert content(made)["classes"][0]["fields"] == {
        "f": "?made by hash_of()", "g": "?computed from things that are not recorded",
    }  # fmt: skip


def test_events_of_a_class_have_their_own_arguments(tree):
    made = tree("__field(int, f)", "__entry->f = t->f;")

    file = data.load(data.dump(content(made)), "test")
    one, two = file.rows("sample_one")[0], file.rows("sample_two")[0]
    assert (file.kernel, one.system) == ("6.99.3", "sample")
    assert one.args == (("struct thing *", "t"), ("int", "v"))
    assert two.args == (("struct thing *", "u"), ("int", "v"))
    assert two.names == ("t", "v")
    assert two.told == (data.Told("f", "", "t->f", ()),)


def test_a_folder_without_trace_headers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a kernel source tree"):
        make(tmp_path)


def test_a_file_that_is_no_recipes_is_refused(tmp_path, monkeypatch):
    bad = tmp_path / f"bad{data.SUFFIX}"
    bad.write_bytes(b"nothing")
    monkeypatch.setenv("FASTRTP_RECIPES", str(bad))

    with pytest.raises(RecordingError, match=r"bad\.recipes\.zst: no file of recipes"):
        data.rows("sched_switch")


def test_the_users_files_come_before_the_shipped_ones(tree, tmp_path, monkeypatch):
    made = tree("__field(int, f)", "__entry->f = t->f;")
    (tmp_path / f"mine{data.SUFFIX}").write_bytes(data.dump(content(made)))
    monkeypatch.setenv("FASTRTP_RECIPES", str(tmp_path))

    assert [row.kernel for row in data.rows("sample_one")] == ["6.99.3"]


def test_a_row_is_added_in_one_line():
    data.add("my_event", "struct sk_buff *skb, int rc", skbaddr="skb", len="skb->len", half="rc|<<1")
    try:
        (row,) = data.rows("my_event")
    finally:
        data.forget("my_event")

    assert row.args == (("struct sk_buff *", "skb"), ("int", "rc"))
    assert row.told == (
        data.Told("skbaddr", "", "skb", ()), data.Told("len", "", "skb->len", ()), data.Told("half", "", "rc", ("<<1",)),
    )  # fmt: skip
    assert data.rows("my_event") == []


def test_the_nearest_kernel_comes_first():
    assert data.rows("timer_start", "6.1.0-56-cloud-amd64")[0].kernel.startswith("6.1.")
    assert data.rows("timer_start", "6.14.2")[0].kernel.startswith("6.12.")


def formats(text: str):
    """(system, format) of every event of a file of formats."""
    for block in re.split(r"^(?:==|#) (?=\S+/\S+)", text, flags=re.MULTILINE)[1:]:
        head, _, body = block.partition("\n")
        system = head.strip().split("/")[0]
        if system not in ("syscalls", "ftrace"):
            yield system, parse_event_format(body, system)


def unpacked(path) -> bytes:
    return zstandard.ZstdDecompressor().decompress(path.read_bytes(), max_output_size=1 << 28)


KERNELS = {
    "6.1": (resources.files("fastrtp.record") / "data/event-formats-6.1.txt.zst", None),
    "6.12": (SHARED / "kernels/6.12/event-formats.txt.zst", SHARED / "kernels/6.12/vmlinux.btf.zst"),
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_format_of_a_real_kernel_has_its_recipe(kernel):
    path, types = KERNELS[kernel]
    if not path.is_file():
        pytest.skip("the formats of this kernel are not here")
    protos = tracepoints(load_btf(types) if types is not None else default_btf())
    wrong, fields, telling = [], 0, 0
    for _system, fmt in formats(unpacked(path).decode()):
        row = choose(fmt, kernel)
        names = {spec.name for spec in fmt.fields if not spec.name.startswith("common_")}
        if row is None or row.fields != names or (fmt.name in protos and len(protos[fmt.name].args) != len(row.args)):
            wrong.append(fmt.name)
        elif row is not None:
            fields += len(names)
            telling += len(names - set(row.left))

    assert wrong == []
    assert telling / fields > 0.94


@pytest.mark.parametrize(("text", "expected"), [
    ("a + b * 2", "a + (b * 2)"), ("(struct x *)p->q", "(struct x *)p->q"), ("a ? b : c ? d : e", "a ? b : (c ? d : e)"),
    ("sizeof(u32) * 2", "4 * 2"), ('"a" "b"', '"ab"'), ("f(x, struct y)[1].z", "f(x, struct y)[1].z"), ("-~!*&p", "-~!(*&p)"),
])  # fmt: skip
def test_expressions_are_read_as_c_has_them(text, expected):
    assert text_of(parse(tokenize(text))) == expected


@pytest.mark.parametrize("text", ["", "a +", "a b", "(a", "? :", "a ? b", "{", "a->"])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(CSyntaxError):
        parse(tokenize(text))


def test_constants_are_computed():
    assert value_of(parse(tokenize("(1 << 4 | 3) * ~0 / -1 % 16 == 3 && 'a' == 97 || x"))) == 1
    assert value_of(parse(tokenize("x + 1"))) is None


@pytest.mark.parametrize(("text", "expected"), [
    ("#define A(x) x + x\nA(1)", "1+1"),
    ("#define S(x) #x\nS(a b)", '"a b"'),
    ("#define C(x, y) x##_##y\nC(a, b)", "a_b"),
    ("#define V(f, ...) f(__VA_ARGS__)\nV(g, 1, 2)", "g(1,2)"),
    ("#define X X + 1\nX", "X+1"),
    ("#ifdef CONFIG_NET\nyes\n#else\nno\n#endif", "yes"),
    ("#if !defined(CONFIG_NET) || 0\nyes\n#elif 1\nno\n#endif", "no"),
    ("#define TRACE_EVENT(a) gone\nTRACE_EVENT(x)", "TRACE_EVENT(x)"),
])  # fmt: skip
def test_macros_are_expanded_as_cpp_does(text, expected):
    assert joined(Preprocessor(lambda name: None).run(text)) == expected
