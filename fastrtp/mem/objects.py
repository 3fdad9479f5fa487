"""ObjectSpace: the kernel's objects as far as a recording knows them, laid out by the loaded BTF in the arena.

One identity is one object: the same pid is the same task_struct, the same recorded pointer the same hrtimer. Objects
are zeroed when made and live until the space is closed. Offsets come from the BTF alone, so a program that was relocated
against the same BTF finds its members. Must not know: recordings, programs.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.btf import Btf, BtfKind, Field
from fastrtp.errors import BtfError

from .arena import Arena

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

TASK_COMM_LEN = 16
_THREAD_SIZE, _PT_REGS_SIZE = 16384, 168
TASK_PT_REGS = _THREAD_SIZE - _PT_REGS_SIZE
"""From a task's stack to its registers of user space. Kernel: arch/x86/include/asm/processor.h:task_pt_regs."""
_USER_SEGMENTS = {"cs": 0x33, "ss": 0x2B}
_ALIGN = 64
_MEMORY = "bytes:"


class ObjectSpace:
    """Typed objects in `arena`, laid out by `btf`.

    Types are named as in the BTF: a struct, a union, or a typedef ("ktime_t"); "bytes:N" is memory of no type. A member's path
    may name another struct that the object is, too: "inet_sock::inet_sport". Addresses are native ones. `rooms`: by type, what
    its objects may be in full, so that there is memory for it.
    Threads that want the same object get the same.
    """

    def __init__(self, arena: Arena, btf: Btf, rooms: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
        self.arena = arena
        self.btf = btf
        self._objects: dict[str, dict[Hashable, int]] = {}
        self._members: dict[tuple[str, str], Field] = {}
        self._rooms: dict[str, int] = {}
        self.rooms: Mapping[str, Sequence[str]] = rooms
        self._types: dict[str, int] = {}
        self._strings: dict[bytes, int] = {}
        self._blocks: list[int] = []
        self._making = threading.RLock()

    def close(self) -> None:
        """Give every object back to the arena."""
        blocks, self._blocks = self._blocks, []
        for block in blocks:
            self.arena.free(block)
        self._objects.clear()
        self._strings.clear()

    def __len__(self) -> int:
        return sum(map(len, self._objects.values())) + len(self._strings)

    def addresses(self) -> frozenset[int]:
        """Of all objects."""
        return frozenset(address for known in self._objects.values() for address in known.values())

    # layout

    def type_id(self, type_name: str) -> int:
        """The BTF id of a type. Raises `BtfError` where the BTF has none."""
        found = self._types.get(type_name)
        if found is None:
            for kind in (BtfKind.STRUCT, BtfKind.UNION, BtfKind.TYPEDEF, BtfKind.INT):
                candidate = self.btf.find(type_name, kind)
                if candidate is not None:
                    found = candidate
                    break
            else:
                raise BtfError(f"no type {type_name!r} in the BTF")
            self._types[type_name] = found
        return found

    def size(self, type_name: str) -> int:
        """Bytes of a type; "bytes:N" is memory of no type."""
        if type_name.startswith(_MEMORY):
            return int(type_name.removeprefix(_MEMORY))
        return self.btf.sizeof(self.type_id(type_name))

    def room(self, type_name: str) -> int:
        """Bytes that an object of a type takes: those of the largest of what it may be besides (`rooms`)."""
        found = self._rooms.get(type_name)
        if found is None:
            others = [other for other in self.rooms.get(type_name, ()) if self.btf.find(other, BtfKind.STRUCT) is not None]
            found = self._rooms[type_name] = max(map(self.size, [type_name, *others]))
        return found

    def member(self, type_name: str, path: str) -> Field:
        """Where a member lies. `path` may offer alternatives, `__state|state`; "" is the whole object. Raises `BtfError`."""
        key = (type_name, path)
        found = self._members.get(key)
        if found is None:
            found = self._members[key] = self._find_member(type_name, path)
        return found

    def _find_member(self, type_name: str, path: str) -> Field:
        seen, _, path = path.rpartition("::")
        type_name, path = seen or type_name, path.rstrip("|")
        if type_name.startswith(_MEMORY):
            return Field(0, self.size(type_name), 0, 0, 0)
        if not path:
            type_id = self.type_id(type_name)
            return Field(0, self.btf.sizeof(type_id), type_id, 0, 0)
        errors = []
        for candidate in path.split("|"):
            try:
                return self.btf.member(self.type_id(type_name), candidate)
            except BtfError as error:
                errors.append(str(error))
        raise BtfError("; ".join(errors))

    def has_member(self, type_name: str, path: str) -> bool:
        """Whether the BTF has the type and the member."""
        try:
            self.member(type_name, path)
        except BtfError:
            return False
        return True

    # objects

    def object(self, type_name: str, identity: Hashable) -> int:
        """Address of the object of a type with this identity, made (zeroed) on first use."""
        known = self._objects.get(type_name, {}).get(identity)
        return int(self.objects(type_name, [identity])[0]) if known is None else known

    def objects(self, type_name: str, identities: Sequence[Hashable]) -> NDArray[np.uint64]:
        """Addresses of many objects; the new ones share one allocation."""
        with self._making:
            known = self._objects.setdefault(type_name, {})
            new = [identity for identity in dict.fromkeys(identities) if identity not in known]
            if new:
                stride = -(-max(self.room(type_name), 1) // _ALIGN) * _ALIGN
                base = self._allocate(stride * len(new))
                known.update(zip(new, range(base, base + stride * len(new), stride), strict=True))
        return np.fromiter((known[identity] for identity in identities), np.uint64, len(identities))

    def zeroed(self, size: int, identity: Hashable) -> int:
        """Address of `size` zero bytes that stand for something nobody recorded."""
        key = (size, identity)
        with self._making:
            known = self._objects.setdefault("", {})
            if key not in known:
                known[key] = self._allocate(size)
            return known[key]

    def task(self, pid: int) -> int:
        """Address of the task_struct of a pid."""
        return int(self.tasks([pid])[0])

    def idle_task(self, cpu: int) -> int:
        """Address of a CPU's idle task: pid 0, comm swapper/N."""
        return int(self.idle_tasks(cpu + 1)[cpu])

    def tasks(self, pids: Iterable[int], tgids: ArrayLike | None = None, comms: ArrayLike | None = None) -> NDArray[np.uint64]:
        """Addresses of task_structs; new ones get their pid, their tgid and a group_leader.

        `tgids` (the pid where left out) and `comms` are set for all of them, known ones included.
        """
        pid_list = [int(pid) for pid in pids]
        with self._making:  # no thread finds a task that has no pid yet, or has its tgid set back
            known = self._objects.setdefault("task_struct", {})
            new = [pid for pid in dict.fromkeys(pid_list) if pid not in known]
            addresses = self.objects("task_struct", pid_list)
            if new:
                fresh = self.objects("task_struct", new)
                numbers = np.array(new, np.int64)
                self.scatter(fresh, "task_struct", "pid", numbers)
                self.scatter(fresh, "task_struct", "tgid", numbers)
                self.scatter(fresh, "task_struct", "group_leader", fresh)
                self._give_registers(fresh, [("task", "", pid) for pid in new])
        if tgids is not None:
            groups = np.asarray(tgids, np.int64)
            self.scatter(addresses, "task_struct", "tgid", groups)
            threads = np.flatnonzero(groups != np.array(pid_list, np.int64))
            if len(threads):
                self.scatter(addresses[threads], "task_struct", "group_leader", self.tasks(groups[threads].tolist()))
        if comms is not None:
            self.scatter(addresses, "task_struct", "comm", np.asarray(comms, f"S{TASK_COMM_LEN}"))
        return addresses

    def idle_tasks(self, cpus: int) -> NDArray[np.uint64]:
        """Addresses of the idle tasks of CPUs 0 to `cpus` - 1."""
        names: list[Hashable] = [("idle", cpu) for cpu in range(cpus)]
        with self._making:
            known = self._objects.setdefault("task_struct", {})
            new = [cpu for cpu in range(cpus) if names[cpu] not in known]
            addresses = self.objects("task_struct", names)
            if new:
                fresh = addresses[new]
                self.scatter(fresh, "task_struct", "comm", np.array([f"swapper/{cpu}" for cpu in new], "S16"))
                self.scatter(fresh, "task_struct", "group_leader", fresh)
                self._give_registers(fresh, [("idle", "", cpu) for cpu in new])
        return addresses

    def _give_registers(self, tasks: NDArray[np.uint64], identities: Sequence[Hashable]) -> None:
        """Let the stacks of tasks end in their registers. There is no memory in front of these."""
        if not self.has_member("task_struct", "stack") or not self.has_member("pt_regs", "di"):
            return
        if self.size("pt_regs") == _PT_REGS_SIZE:
            registers = self.objects("pt_regs", identities)
            self.scatter(tasks, "task_struct", "stack", registers - np.uint64(TASK_PT_REGS))
            for name, value in _USER_SEGMENTS.items():
                self.scatter(registers, "pt_regs", name, np.full(len(registers), value))

    def string(self, text: bytes) -> int:
        """Address of `text` with a NUL behind it; equal texts share one."""
        known = self._strings.get(text)
        return int(self.strings([text])[0]) if known is None else known

    def strings(self, texts: Sequence[bytes]) -> NDArray[np.uint64]:
        """Addresses of many strings; the new ones share one allocation."""
        with self._making:
            new = [text for text in dict.fromkeys(texts) if text not in self._strings]
            if new:
                sizes = [-(-(len(text) + 1) // 8) * 8 for text in new]
                base = self._allocate(sum(sizes))
                view = self.arena.view(base, sum(sizes))
                at = 0
                for text, size in zip(new, sizes, strict=True):
                    view[at : at + len(text)] = np.frombuffer(text, np.uint8)
                    self._strings[text] = base + at
                    at += size
        return np.fromiter((self._strings[text] for text in texts), np.uint64, len(texts))

    # values

    def set(self, type_name: str, identity: Hashable, path: str, value: int | bytes) -> None:
        """Write one member of one object: an integer, or the bytes of a char array."""
        address = np.array([self.object(type_name, identity)], np.uint64)
        field = self.member(type_name, path)
        if isinstance(value, bytes):
            self.scatter(address, type_name, path, np.array([value], f"S{field.size}"))
        else:
            self.scatter(address, type_name, path, np.array([value & (1 << 64) - 1], np.uint64))

    def get(self, type_name: str, address: int, path: str) -> Any:
        """A member of the object at `address`, decoded by the BTF."""
        field = self.member(type_name, path)
        return self.btf.decode(field.type_id, self.arena.view(address + field.offset_bytes, field.size).tobytes())

    def scatter(self, addresses: NDArray[np.uint64], type_name: str, path: str, values: NDArray[Any]) -> None:
        """Write a member of many objects at once. Integers are cut or extended to the member, S values to its bytes.

        Raises `BtfError` for a bit-field, whose neighbours a plain write would destroy.
        """
        field = self.member(type_name, path)
        if field.bitfield_size:
            raise BtfError(f"{type_name}.{path} is a bit-field of {field.bitfield_size} bits")
        if not len(addresses):
            return
        if values.dtype.kind == "S":
            rows = np.ascontiguousarray(values, f"S{field.size}")
        else:
            rows = np.ascontiguousarray(values, np.int64 if values.dtype.kind == "i" else np.uint64)
        raw = rows.view(np.uint8).reshape(len(rows), -1)[:, : field.size]
        whole = self.arena.view(self.arena.base, self.arena.size)
        offsets = addresses.astype(np.int64) - self.arena.base + field.offset_bytes
        whole[offsets[:, None] + np.arange(raw.shape[1])] = raw

    def _allocate(self, size: int) -> int:
        block = self.arena.alloc(max(size, 8), _ALIGN)
        self._blocks.append(block)
        return block
