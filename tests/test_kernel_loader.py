"""Loading objects as libbpf does: maps, globals, programs, program arrays, attachment, errors with their stage."""

from __future__ import annotations

import ctypes
import errno
import struct
from pathlib import Path

import pytest

from fastrtp.btf import BtfKind, BtfWriter
from fastrtp.errors import BpfError, ObjectError, VerifierError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.uapi import ATTRS, BpfCmd

ELF = Path(__file__).parent / "data" / "elf"


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def test_programs_and_maps_are_there_by_name(kernel: Kernel):
    with kernel.load(ELF / "maps.bpf.o") as obj:
        assert set(obj.programs) == {"target", "use_all"}
        assert set(obj.maps) == {"hash", "percpu", "slots", "lru", "ring", "perf", "jumps"}
        assert obj.programs["use_all"].fd in kernel.current.files
        assert obj.maps["hash"].map.max_entries == 100


def test_bytes_load_as_a_path_does(kernel: Kernel):
    with kernel.load((ELF / "maps.bpf.o").read_bytes(), name="maps.bpf.o") as obj:
        assert "use_all" in obj.programs


def test_global_data_has_its_initial_values_and_constants_are_frozen(kernel: Kernel):
    with kernel.load(ELF / "globals.bpf.o") as obj:
        data = obj.maps[".data"].lookup(u32(0))
        assert struct.unpack_from("<i", data)[0] in (42, 43)
        assert obj.maps[".rodata"].map.frozen
        with pytest.raises(BpfError) as caught:
            obj.maps[".rodata"].update(u32(0), bytes(obj.maps[".rodata"].map.value_size))
        assert caught.value.errno == errno.EPERM


def test_a_program_works_on_its_globals(kernel: Kernel):
    with kernel.load(ELF / "globals.bpf.o") as obj:
        count = obj.programs["count"]

        assert [count.test_run() for _ in range(3)] == [1, 2, 3]
        assert dict(obj.maps[".bss.custom"].raw_items())[u32(0)] == u32(3)


def test_a_program_array_is_filled_at_load(kernel: Kernel):
    with kernel.load(ELF / "maps.bpf.o") as obj:
        assert obj.maps["jumps"].lookup(u32(5)) == u32(obj.programs["target"].prog.id)
        assert obj.programs["use_all"].test_run() == 1


def test_a_ring_buffer_gives_its_records(kernel: Kernel):
    with kernel.load(ELF / "maps.bpf.o") as obj:
        obj.programs["use_all"].test_run()

        records = list(obj.maps["ring"].consume())

        assert [len(record) for record in records] == [16]
        assert list(obj.maps["ring"].consume()) == []


def test_a_ring_buffer_is_rounded_up_to_pages(kernel: Kernel):
    with kernel.load(ELF / "maps.bpf.o") as obj:
        assert obj.maps["ring"].map.max_entries == 8192


def test_values_are_decoded_by_btf(kernel: Kernel):
    with kernel.load(ELF / "maps.bpf.o") as obj:
        obj.maps["hash"].update(struct.pack("<I12s", 7, b"bash"), struct.pack("<QII", 5, 1, 0))
        ((key, value),) = obj.maps["hash"].items()

        assert key == {"pid": 7, "comm": "bash"}
        assert value["count"] == 5


def test_a_map_that_is_pinned_by_name_is_shared(kernel: Kernel):
    with kernel.load(ELF / "maps.bpf.o") as first, kernel.load(ELF / "maps.bpf.o") as second:
        first.maps["lru"].update(bytes(8), b"\x07")

        assert second.maps["lru"].lookup(bytes(8)) == b"\x07"
        assert list(kernel.bpffs) == ["/sys/fs/bpf/lru"]
    assert len(kernel.maps) == 1
    kernel.bpffs.unmount()


def test_programs_of_other_types_are_listed_with_the_reason(kernel: Kernel):
    with kernel.load(ELF / "sections.bpf.o") as obj:
        assert "kprobe" in obj.skipped["on_kprobe"]
        assert "not loaded automatically" in obj.skipped["on_manual"]
        assert "on_manual" not in obj.programs


def test_autoload_can_be_chosen(kernel: Kernel):
    with kernel.load(ELF / "sections.bpf.o", autoload=["on_manual"]) as obj:
        assert list(obj.programs) == ["on_manual"]


def test_attach_takes_every_program_whose_section_names_a_tracepoint(kernel: Kernel):
    names = ["on_raw_tp", "on_second_in_section", "on_raw_tracepoint", "on_tp_btf", "on_bare"]
    with kernel.load(ELF / "sections.bpf.o", autoload=names) as obj:
        with obj.attach() as links:
            assert sorted(link.tp_name for link in links) == ["sched_switch", "sched_switch", "sched_wakeup", "task_rename"]
            assert len(kernel.tracepoints["sched_switch"].funcs) == 2
        assert not kernel.tracepoints["sched_switch"].enabled


def test_a_bare_section_is_attached_by_name(kernel: Kernel):
    with kernel.load(ELF / "sections.bpf.o", autoload=["on_bare"]) as obj:
        link = obj.programs["on_bare"].attach("sys_enter", cookie=5)
        assert kernel.tracepoints["sys_enter"].enabled
        link.close()
        link.close()
        with pytest.raises(ValueError, match="names no tracepoint"):
            obj.programs["on_bare"].attach()


def test_attach_is_all_or_nothing(kernel: Kernel):
    with kernel.load(ELF / "subprogs.bpf.o") as obj:
        kernel.trace_event("one", "u64 a")
        with pytest.raises(BpfError, match="attach program calls_global: ENOENT") as caught:
            obj.attach()
        assert caught.value.errno == errno.ENOENT
        assert not kernel.tracepoints["one"].enabled
        assert len(kernel.links) == 0


def test_a_refused_program_names_itself_and_leaves_nothing(kernel: Kernel):
    needs = "load program unguarded: instruction 0 needs FIELD_BYTE_OFFSET struct task_struct___mine.not_there,"
    with pytest.raises(VerifierError, match=needs) as caught:
        kernel.load(ELF / "core.bpf.o")

    assert caught.value.errno == errno.EINVAL
    assert "invalid func unknown#195896080" in caught.value.log
    assert (len(kernel.maps), len(kernel.progs), len(list(kernel.ids("btf")))) == (0, 0, 1)
    assert list(kernel.current.files) == [0, 1, 2]


def test_a_file_that_is_not_there_or_no_object_is_an_object_error(kernel: Kernel, tmp_path: Path):
    with pytest.raises(ObjectError, match="no such file"):
        kernel.load(tmp_path / "nosuch.bpf.o")
    with pytest.raises(ObjectError):
        kernel.load(b"not an object")


def test_every_cut_of_an_object_is_refused_or_loads(kernel: Kernel):
    data = (ELF / "maps.bpf.o").read_bytes()
    for size in range(0, len(data), 997):
        with pytest.raises((ObjectError, BpfError)):
            kernel.load(data[:size])
        assert list(kernel.current.files) == [0, 1, 2]
    kernel.bpffs.unmount()


def test_an_objects_programs_count_their_runs(kernel: Kernel):
    with kernel.load(ELF / "sections.bpf.o", autoload=["on_raw_tp"]) as obj, obj.attach():
        for _ in range(5):
            kernel.trace("sched_switch")(0, 0, 0, 0)

        assert obj.programs["on_raw_tp"].run_cnt == 5


def test_a_process_that_exits_takes_its_object_along(kernel: Kernel):
    process = kernel.new_process()
    obj = process.load(ELF / "sections.bpf.o", autoload=["on_raw_tp"])
    links = obj.attach()
    process.kill()

    assert len(kernel.progs) == 0
    links.close()
    obj.close()


class TestCoreRelosLeftToTheKernel:
    """attr.core_relos: what libbpf applies itself, and light skeletons do not."""

    @pytest.fixture
    def loadable(self, kernel: Kernel):
        """Fields of a PROG_LOAD of `r1 = *(u32 *)(r1 + offsetof(task_struct, pid))`-like code, with its BTF."""
        writer = BtfWriter()
        integer = writer.add_int("int", 4, 1)
        task = writer.add_struct("task_struct", 8, [("filler", integer, 0), ("pid", integer, 32)])
        proto = writer.add_func_proto(integer, [("ctx", writer.add_pointer(0))])
        func = writer.add(BtfKind.FUNC, "prog", proto)
        access = writer.string("0:1")
        btf = kernel.btf_load(writer.dump())
        code = encode(assemble("r0 = 4\nexit"))
        self.kept = [ctypes.create_string_buffer(blob) for blob in (
            code, b"GPL", struct.pack("<II", 0, func), struct.pack("<IIII", 0, task, access, 0),
        )]  # fmt: skip
        insns, license_text, func_info, relos = map(ctypes.addressof, self.kept)
        return {
            "prog_type": 17, "insns": insns, "insn_cnt": 2, "license": license_text, "prog_btf_fd": btf,
            "func_info": func_info, "func_info_cnt": 1, "func_info_rec_size": 8,
            "core_relos": relos, "core_relo_cnt": 1, "core_relo_rec_size": 16,
        }  # fmt: skip

    def load(self, kernel: Kernel, fields: dict[str, int]) -> int:
        return kernel.bpf(BpfCmd.BPF_PROG_LOAD, ATTRS[BpfCmd.BPF_PROG_LOAD].struct(log_level=1, **fields))

    def test_they_are_applied(self, kernel: Kernel, loadable):
        fd = self.load(kernel, loadable)

        assert kernel.prog_test_run(fd) == kernel.btf.member("task_struct", "pid").offset_bytes

    @pytest.mark.parametrize(
        "field", [{"core_relo_rec_size": 12}, {"core_relo_rec_size": 18}, {"core_relo_rec_size": 256}, {"core_relo_cnt": 1 << 30}]
    )
    def test_record_sizes_and_counts_are_checked(self, kernel: Kernel, loadable, field: dict[str, int]):
        with pytest.raises(BpfError) as caught:
            self.load(kernel, loadable | field)
        assert caught.value.errno == errno.EINVAL

    def test_an_instruction_that_is_not_there_is_einval(self, kernel: Kernel, loadable):
        struct.pack_into("<I", self.kept[3], 0, 16)
        with pytest.raises(VerifierError, match=r"Invalid core_relo\[0\].insn_off:16 prog->len:2"):
            self.load(kernel, loadable)
