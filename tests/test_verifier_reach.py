"""Every refusal is reached by a case: the messages in the verifier's sources beside those that cases and tests expect.

A message is what `reject(errno, message)`, `Refusal(errno, message)` or `refusal(message)` is called with, or a value of a
module's table named *_MESSAGES or *_REASONS; what is filled in matches anything. Expected messages are the `; ERRNO message` of
data cases, `expect:` and `says:` of C sources, and the texts in tests/*.py.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import fastrtp.verifier

SOURCES = Path(fastrtp.verifier.__file__).parent
TESTS = Path(__file__).parent
_CALLS = {"reject": 1, "Refusal": 1, "refusal": 0}
_PLACEHOLDER = re.compile(r"\\\{.*?\\\}|%[-+#0-9.]*[a-zA-Z]+")


def patterns(node: ast.expr) -> Iterator[str]:
    """Regular expressions of the texts that an expression may be; none where nothing is known of it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if node.value:
            yield re.escape(node.value)
    elif isinstance(node, ast.JoinedStr):
        yield "".join(re.escape(part.value) if isinstance(part, ast.Constant) else ".*" for part in node.values)  # type: ignore[arg-type]
    elif isinstance(node, ast.IfExp):
        yield from patterns(node.body)
        yield from patterns(node.orelse)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = list(patterns(node.left)) or [".*"], list(patterns(node.right)) or [".*"]
        yield from (a + b for a in left for b in right if a + b != ".*.*")


def table_patterns(node: ast.expr) -> Iterator[str]:
    """Those of a table's texts, with {} or %d for what is filled in."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and " " in part.value:
            yield _PLACEHOLDER.sub(".*", re.escape(part.value))


def messages() -> Iterator[tuple[str, str]]:
    """(module, pattern) of every refusal."""
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in _CALLS and len(node.args) > _CALLS[name]:
                    yield from ((path.stem, pattern) for pattern in patterns(node.args[_CALLS[name]]))
            elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [target.id for target in targets if isinstance(target, ast.Name)]
                if any(name.endswith(("_MESSAGES", "_REASONS")) for name in names):
                    yield from ((path.stem, pattern) for pattern in table_patterns(node.value))


def expected() -> Iterator[str]:
    """Texts that a test or a case waits for."""
    for path in sorted((TESTS / "data" / "verifier").glob("*.txt")):
        yield from re.findall(r"; E\w+ (.*)", path.read_text())
    for path in sorted((TESTS / "data" / "verifier").rglob("*.c")):
        yield from re.findall(r"/\* (?:expect: E\w+|says:) (.*) \*/", path.read_text())
    for path in sorted(TESTS.glob("test_*.py")):
        if path.name == Path(__file__).name:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "0" for part in node.values)


def uncovered() -> set[tuple[str, str]]:
    """Messages that nobody waits for."""
    texts = "\n".join(set(expected()))
    return {(module, pattern) for module, pattern in messages() if not re.search(pattern, texts)}


UNREACHABLE = {
    "invalid BPF_ALU opcode .*": "resolve.py refuses unknown opcodes before",
    "invalid BPF_JMP/JMP32 opcode .*": "resolve.py refuses unknown opcodes before",
    "invalid BPF_LD mode": "resolve.py refuses unknown opcodes before",
    "invalid BPF_LD_IMM insn": "resolve.py refuses unknown opcodes before",
    "invalid insn idx .* insn_cnt .*": "check_subprogs lets no function run into its end",
    "program is nested too deeply": "nothing recurses by the program's length; kept for RecursionError",
    "unknown return type .* of func .*#.*": "a row of the helper table that nobody wrote",
    "func .*#.*: no struct .* in the kernel's BTF": "every kernel's BTF has these structs",
    "func bpf_find_vma#180: no struct vm_area_struct in the kernel's BTF": "every kernel's BTF has the struct",
    "func .* reference has not been acquired before": "the argument's check refuses what was not acquired",
    "invalid map_ptr to access map->key": "the first argument's check refuses what is no map",
    "invalid map_ptr to access map->value": "the first argument's check refuses what is no map",
    "more than one arg with ref_obj_id R.* .* .*": "no helper takes two acquired pointers",
    "Expected a dynptr of type .* as arg #.*": "only submit and discard want a kind, and they want a reference first",
    "Locking two bpf_spin_locks are not allowed": "no helper is called while a lock is held",
    "variable offset stack pointer cannot be passed into helper function; var_off=.* off=.* size=.*": (
        "areas of helpers are checked as ranges"
    ),
    "cannot pass pointer to const bpf_dynptr, the helper mutates it": "every helper reads its dynptr, makes it or takes it over",
    "allocated object must be referenced": "a pointer to an object that is not owned has another type",
    ".*: no struct .* in the kernel's BTF": "every kernel's BTF has these structs",
    "bpf_struct_ops map cannot be used in prog": "there are no such maps",
    "tracing progs cannot use bpf_wq yet": "the field is refused when the map is made",
    "struct .* is nested too deeply": "no kernel's BTF has a struct within itself",
    "arg#.* type tag is not supported in static functions": "of a static program it is said, and does not matter",
}
"""Second lines of defence, and why nothing gets to them."""


def test_every_refusal_has_a_case() -> None:
    """But for the second lines of defence, none of which has a case or is gone."""
    found = {re.sub(r"\\(.)", r"\1", pattern) for _, pattern in uncovered()}

    assert found == UNREACHABLE.keys()


def test_the_walker_sees_messages() -> None:
    """Plain texts, f-strings, alternatives, sums and tables."""
    text = """
env.reject(1, f"R{n} is {what}" if n else "no register")
raise Refusal(2, "a" + name)
LOAD_MESSAGES = {1: "bad load of {} bytes", 2: "short"}
"""
    tree = ast.parse(text)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    table = next(node for node in tree.body if isinstance(node, ast.Assign))

    assert sorted(pattern for call in calls for pattern in patterns(call.args[1])) == ["R.*\\ is\\ .*", "a.*", "no\\ register"]
    assert list(table_patterns(table.value)) == ["bad\\ load\\ of\\ .*\\ bytes"]


if __name__ == "__main__":
    for row in sorted(uncovered()):
        print(row)
