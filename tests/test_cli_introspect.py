"""`fastrtp prog|map|link|btf` and `replay --then`: bpftool's words, text and JSON keys."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import fastrtp
from fastrtp.cli import main
from fastrtp.cli.introspect import run_words
from fastrtp.errors import BpfError
from fastrtp.kernel import Kernel

RUNQLAT = str(Path(fastrtp.__file__).parent / "programs" / "runqlat.bpf.o")
RECORDING = str(Path(fastrtp.__file__).parent / "record" / "data" / "churn.trace.dat")

# `bpftool -j prog show` and its neighbours (v7.1) of the same object on Linux 6.18; `pids` where bpftool has its skeletons
PROG_KEYS = ["id", "type", "name", "tag", "gpl_compatible", "loaded_at", "uid", "bytes_xlated", "jited", "bytes_jited",
             "bytes_memlock", "map_ids", "btf_id", "pids"]  # fmt: skip
MAP_KEYS = ["id", "type", "name", "flags", "bytes_key", "bytes_value", "max_entries", "bytes_memlock", "frozen", "btf_id", "pids"]
LINK_KEYS = ["id", "type", "prog_id", "tp_name", "cookie", "pids"]
BTF_KEYS = ["id", "size", "prog_ids", "map_ids", "kernel", "pids"]


def run(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


def rows(*args: str) -> list[dict]:
    """The JSON of a command over the runqlat object, attached."""
    result = run(args[0], "-j", "--attach", "-o", RUNQLAT, *args[1:])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize(("noun", "keys"), [("prog", PROG_KEYS), ("map", MAP_KEYS), ("link", LINK_KEYS)])
@pytest.mark.parametrize("verb", [(), ("show",), ("list",)])
def test_json_has_the_keys_of_bpftool_in_its_order(noun: str, keys: list[str], verb: tuple[str, ...]):
    found = rows(noun, *verb)

    assert [list(row) for row in found] == [keys] * 3


def test_btf_lists_the_kernels_first_and_who_uses_the_others():
    vmlinux, anonymous = rows("btf", "show")

    assert (vmlinux["name"], vmlinux["kernel"], vmlinux["prog_ids"]) == ("vmlinux", True, [])
    assert list(anonymous) == BTF_KEYS
    assert (anonymous["prog_ids"], anonymous["map_ids"]) == ([1, 2, 3], [1, 2, 3])


def test_one_is_chosen_by_id_name_or_tag():
    every = rows("prog")

    assert rows("prog", "show", "id", "3")["name"] == "on_switch"
    assert rows("prog", "show", "name", "on_switch")["id"] == 3
    assert [row["id"] for row in rows("prog", "show", "tag", every[0]["tag"])] == [1, 2]
    assert rows("map", "show", "name", "runqlat.rodata")["frozen"] == 1
    assert rows("link", "show", "id", "3")["tp_name"] == "sched_switch"


def test_the_plain_text_is_bpftools():
    result = run("prog", "--attach", "-o", RUNQLAT, "show", "id", "3")
    first, second, third, fourth, *_ = result.stdout.splitlines()

    assert first.startswith("3: raw_tracepoint  name on_switch  tag ")
    assert first.endswith("  gpl")
    assert second.startswith("\tloaded_at 20")
    assert second.endswith("  uid 0")
    assert third.startswith("\txlated 1448B  jited ")
    assert third.endswith("B  memlock 4096B  map_ids 3,1,2")
    assert fourth == "\tbtf_id 2"
    assert "2: hash  name runqlat  flags 0x0\n\tkey 4B  value 160B  max_entries 65536" in run("map", "-o", RUNQLAT).stdout
    assert "3: raw_tracepoint  prog 3  \n\ttp_name 'sched_switch'  " in run("link", "--attach", "-o", RUNQLAT).stdout


def test_xlated_dump_has_prototype_source_and_maps_by_id():
    listing = run("prog", "-o", RUNQLAT, "dump", "xlated", "name", "on_wakeup").stdout.splitlines()
    found = rows("prog", "dump", "xlated", "name", "on_wakeup")

    assert listing[:3] == ["int on_wakeup(__u64 *ctx):", "; int on_wakeup(__u64 *ctx)", "   0: (b7) r2 = 2416"]
    assert any(line.endswith("(85) call bpf_probe_read_kernel#113") for line in listing)
    assert any(line.endswith("= map[id:1]") for line in listing)
    assert found[0] == {"proto": "int on_wakeup(__u64 *ctx)", "src": "int on_wakeup(__u64 *ctx)", "disasm": "(b7) r2 = 2416"}


def test_xlated_dump_with_opcodes_line_numbers_and_as_a_file(tmp_path: Path):
    opcodes = rows("prog", "dump", "xlated", "id", "1", "opcodes")[0]["opcodes"]
    lines = run("prog", "-o", RUNQLAT, "dump", "xlated", "id", "1", "linum").stdout
    path = tmp_path / "insns"

    assert run("prog", "-o", RUNQLAT, "dump", "xlated", "id", "1", "file", str(path)).exit_code == 0
    assert opcodes == {"code": "0xb7", "src_reg": "0x0", "dst_reg": "0x2", "off": ["0x00", "0x00"],
                       "imm": ["0x70", "0x09", "0x00", "0x00"]}  # fmt: skip
    assert "runqlat.bpf.c line_num:73 line_col:0]" in lines
    assert len(path.read_bytes()) == 176


def test_jited_dump_is_the_native_code(tmp_path: Path):
    (function,) = rows("prog", "dump", "jited", "id", "1")
    path = tmp_path / "code"
    size = rows("prog", "show", "id", "1")["bytes_jited"]

    assert run("prog", "-o", RUNQLAT, "dump", "jited", "id", "1", "file", str(path)).exit_code == 0
    assert function["name"].endswith("_on_wakeup")
    assert len(function["insns"]) > 20
    assert {"operation", "operands", "src"} <= function["insns"][0].keys()
    assert len(path.read_bytes()) == size


def test_jited_dump_has_the_source_and_the_instructions_that_code_is_for():
    (function,) = rows("prog", "dump", "jited", "id", "1", "linum", "bpf", "opcodes")
    text = run("prog", "-o", RUNQLAT, "dump", "jited", "id", "1", "linum", "bpf").stdout
    call = next(insn for insn in function["insns"] if insn.get("disasm") == "(85) call bpf_ktime_get_ns#5")

    assert function["insns"][0]["line_num"] == 73
    assert call["index"] == 9
    assert all(len(byte) == 4 for byte in call["opcodes"])
    assert "line_num:73 line_col:0]\n   0: (b7) r2 = 2416\n\t" in text
    assert run("prog", "-o", RUNQLAT, "dump", "jited", "id", "1", "nonsense").exit_code == 2


def test_map_dump_is_decoded_by_btf():
    assert rows("map", "dump", "name", "runqlat.rodata") == [
        {"key": ["0x00"] * 4, "value": ["0x01"], "formatted": {"value": {".rodata": [{"per_task": True}]}}}
    ]
    assert json.loads(run("map", "-o", RUNQLAT, "dump", "id", "3").stdout) == [{"value": {".rodata": [{"per_task": True}]}}]
    assert run("map", "-o", RUNQLAT, "dump", "id", "1").stdout == "Found 0 elements\n"


def test_btf_dump_raw_json_and_as_c():
    raw = run("btf", "-o", RUNQLAT, "dump", "id", "2").stdout.splitlines()
    types = rows("btf", "dump", "id", "2")["types"]
    header = run("btf", "-o", RUNQLAT, "dump", "id", "2", "format", "c").stdout

    assert raw[:3] == [
        "[1] PTR '(anon)' type_id=3",
        "[2] INT 'int' size=4 bits_offset=0 nr_bits=32 encoding=SIGNED",
        "[3] ARRAY '(anon)' type_id=2 index_type_id=4 nr_elems=1",
    ]
    assert "[13] STRUCT '(anon)' size=32 vlen=4\n\t'type' type_id=1 bits_offset=0" in "\n".join(raw)
    assert types[1] == {"id": 2, "kind": "INT", "name": "int", "size": 4, "bits_offset": 0, "nr_bits": 32, "encoding": "SIGNED"}
    assert "struct hist {\n\t__u64 count;" in header
    assert rows("btf", "dump", "map", "id", "2", "value")["types"][0]["name"] == "hist"
    assert rows("btf", "dump", "prog", "id", "1")["types"] == types


@pytest.mark.parametrize(("words", "status", "text"), [
    (["prog", "show", "id", "99"], 1, "ENOENT"),
    (["map", "dump", "id", "99"], 1, "ENOENT"),
    (["btf", "dump", "id", "99"], 1, "ENOENT"),
    (["prog", "show", "pinned", "/sys/fs/bpf/none"], 1, "ENOENT"),
    (["prog", "burn"], 2, "one of show, list, dump, pin"),
    (["prog", "show", "id"], 2, "id is missing"),
    (["prog", "show", "id", "x"], 2, "is a number"),
    (["prog", "show", "id", "1", "2"], 2, "nothing known about '2'"),
    (["map", "dump"], 2, "3 maps are meant"),
    (["prog", "dump", "xlated", "id", "1", "sideways"], 2, "sideways"),
    (["btf", "dump", "id", "2", "format", "pascal"], 2, "format is one of raw, c"),
    (["link", "detach", "id", "1"], 1, "EOPNOTSUPP"),
])  # fmt: skip
def test_errors_are_one_line(words: list[str], status: int, text: str):
    result = run(words[0], "--attach", "-o", RUNQLAT, *words[1:])

    assert result.exit_code == status
    assert text in result.stderr
    assert result.stderr.count("\n") == 1


class TestThen:
    def test_commands_see_the_programs_attached_and_their_statistics(self):
        result = run("replay", RUNQLAT, RECORDING, "--stats", "--format", "json", "--then", "prog show", "--then", "link show")
        found = json.loads(result.stdout)
        by_name = {row["name"]: row for row in found["then"]["prog show"]}

        assert by_name["on_switch"]["run_cnt"] == 5069
        assert by_name["on_switch"]["run_time_ns"] > 5069
        assert found["stats"]["on_switch"]["run_cnt"] == 5069
        assert [row["tp_name"] for row in found["then"]["link show"]] == ["sched_wakeup", "sched_wakeup_new", "sched_switch"]

    def test_without_stats_there_are_none(self):
        result = run("replay", RUNQLAT, RECORDING, "--format", "json", "--then", "prog show")

        assert all("run_cnt" not in row for row in json.loads(result.stdout)["then"]["prog show"])

    def test_objects_can_be_pinned_and_found_again(self):
        result = run("replay", RUNQLAT, RECORDING, "--then", "map pin id 2 /sys/fs/bpf/hists",
                     "--then", "map show pinned /sys/fs/bpf/hists -f")  # fmt: skip

        assert result.exit_code == 0, result.output
        assert "pinned /sys/fs/bpf/hists" in result.stdout

    def test_words_are_checked_before_the_replay(self):
        result = run("replay", RUNQLAT, RECORDING, "--then", "prig show")

        assert result.exit_code == 2
        assert result.stdout == ""


def test_shim_sizes_are_listed():
    result = run("list", "--shims", "--format", "json")
    found = json.loads(result.stdout)

    assert found["tracepoints"] == sum(found["arity"].values()) == sum(found["users"].values())
    assert all(size > 0 for size in found["shims"].values())
    assert "bytes of .text" in run("list", "--shims").stdout


def after(*lines: str) -> list[tuple[int, str]]:
    """(status, text) of commands that follow each other in one kernel."""
    with Kernel(cpus=2) as kernel, kernel.load(RUNQLAT):
        found = []
        for words in lines:
            try:
                found.append((0, run_words(kernel, words).text))
            except BpfError as error:
                found.append((error.errno or 0, ""))
        return found


def test_single_elements_are_looked_up_set_and_removed():
    """Bytes as bpftool takes them, flags, the errors of bpf(2), and what the words lack."""
    key = "key hex 05 00 00 00"
    found = after(
        f"map lookup name enqueued {key}",
        f"map update name enqueued {key} value 1 0x2 0 0 0 0 0 0 exist",
        f"map update name enqueued {key} value 1 0x2 0 0 0 0 0 0",
        f"map update name enqueued {key} value 1 0 0 0 0 0 0 0 noexist",
        f"map lookup name enqueued {key}",
        "map getnext name enqueued",
        f"map getnext name enqueued {key}",
        f"map delete name enqueued {key}",
        f"map delete name enqueued {key}",
        "map getnext name enqueued",
    )
    assert [status for status, _ in found] == [2, 2, 0, 17, 0, 0, 2, 0, 2, 2]
    assert json.loads(found[4][1]) == {"key": 5, "value": 513}
    assert found[5][1] == "next key:\n05 00 00 00"
    for words, why in (
        ("map lookup name enqueued key 1 2 3", "byte 3 of 4 of the key is missing"),
        ("map lookup name enqueued key 1 2 3 256", "byte 3 of the key is '256'"),
        ("map update name enqueued key 1 2 3 4", "value is missing"),
        ("map lookup name enqueued key 1 2 3 4 5", "nothing known about '5'"),
    ):
        with pytest.raises(click.UsageError, match=why):
            after(words)


def test_programs_are_run_on_a_context(tmp_path: Path):
    """Of a file, or of zeros."""
    context = tmp_path / "ctx"
    context.write_bytes(bytes(24))
    assert after("prog run name on_wakeup", f"prog run name on_wakeup ctx_in {context}") == [(0, "Return value: 0")] * 2


def test_a_reader_who_has_seen_enough_is_no_error():
    """`fastrtp ... | head -1` ends well, however much there was to write."""
    command = f"set -o pipefail; {sys.executable} -m fastrtp list | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
