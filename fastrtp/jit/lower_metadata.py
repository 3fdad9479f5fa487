"""LLVM metadata of a module: what cannot alias, and where code comes from.

Memory that a program touches is of kinds that never overlap: a frame of the stack, the context, the values of maps; an
access that the verifier saw with one kind alone says so. Objects of the kernel (and anything else in the arena) may be the
values of maps to a program that casts pointers, values of one map overlap with each other and what helpers do is not said
at all, so none of that is told apart.

Debug information has a line for each instruction: its index + 1, as there is no line 0.
"""

from __future__ import annotations

_APART = {
    "stack": ("ctx", "map_value", "btf", "tp_buffer"),
    "ctx": ("stack", "map_value", "btf", "tp_buffer"),
    "map_value": ("stack", "ctx"),
}
"""Kind of memory (InsnAux.access) -> the kinds that it never overlaps with."""

_FIXED = ("!0 = !{}", '!1 = !{!"branch_weights", i32 1000, i32 1}')


class Metadata:
    """The numbered nodes of one module, made as they are asked for."""

    def __init__(self) -> None:
        self._nodes = list(_FIXED)
        self._scopes: dict[str, int] = {}
        self._lists: dict[tuple[str, ...], int] = {}
        self._named: list[str] = []
        self._places: dict[tuple[int, int], int] = {}
        self._file = 0
        self._unit = 0

    def lines(self) -> list[str]:
        """All nodes, and the module's named lists."""
        return [*self._nodes, *self._named]

    def access(self, kind: str | None) -> str:
        """What follows a load or store of a kind of memory."""
        apart = _APART.get(kind or "")
        if kind is None or apart is None:
            return ""
        return f", !alias.scope !{self._list((kind,))}, !noalias !{self._list(apart)}"

    def subprogram(self, name: str, start: int) -> int:
        """Node of a function that begins at instruction `start`."""
        if not self._unit:
            self._file = self._node('!DIFile(filename: "bpf", directory: "")')
            unit = f'language: DW_LANG_C11, file: !{self._file}, producer: "fastrtp", isOptimized: true, emissionKind: FullDebug'
            self._unit = self._node(f"distinct !DICompileUnit({unit})")
            version = self._node('!{i32 2, !"Debug Info Version", i32 3}')
            dwarf = self._node('!{i32 7, !"Dwarf Version", i32 4}')
            self._named += [f"!llvm.dbg.cu = !{{!{self._unit}}}", f"!llvm.module.flags = !{{!{version}, !{dwarf}}}"]
        kind = self._node("!DISubroutineType(types: !0)")
        place = f'name: "{name}", scope: !{self._file}, file: !{self._file}, line: {start + 1}, scopeLine: {start + 1}'
        return self._node(f"distinct !DISubprogram({place}, type: !{kind}, spFlags: DISPFlagDefinition, unit: !{self._unit})")

    def place(self, index: int, subprogram: int) -> str:
        """What follows an instruction that the instruction at `index` became."""
        number = self._places.get((index, subprogram))
        if number is None:
            number = self._places[index, subprogram] = self._node(f"!DILocation(line: {index + 1}, scope: !{subprogram})")
        return f", !dbg !{number}"

    def _node(self, text: str) -> int:
        self._nodes.append(f"!{len(self._nodes)} = {text}")
        return len(self._nodes) - 1

    def _list(self, kinds: tuple[str, ...]) -> int:
        number = self._lists.get(kinds)
        if number is None:
            scopes = ", ".join(f"!{self._scope(kind)}" for kind in kinds)
            number = self._lists[kinds] = self._node(f"!{{{scopes}}}")
        return number

    def _scope(self, kind: str) -> int:
        if not self._scopes:
            number = len(self._nodes)
            self._scopes[""] = self._node(f"distinct !{{!{number}}}")
        found = self._scopes.get(kind)
        if found is None:
            number = len(self._nodes)
            found = self._scopes[kind] = self._node(f"distinct !{{!{number}, !{self._scopes['']}}}")
        return found
