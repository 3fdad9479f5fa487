"""The verifier: shows that a program is safe to run as native code in this process, or refuses it as Linux does.

Path-sensitive abstract interpretation of every path from the first instruction, with checkpoints where paths that
can do nothing new end. Target: Linux 6.18 for RAW_TRACEPOINT, RAW_TRACEPOINT_WRITABLE and tp_btf programs of a
privileged loader. What it cannot prove it refuses.

Where it is: `domain/` what is known of a value, `core/` the native half, `rules/` the Python half, `report/` what is said of it;
`api.py` is what goes in and comes out, `cache.py` what is kept, `reads.py` what a program can read of its arguments.

Two halves. The core (`*_native.py`, compiled once for all programs) keeps registers, stack and checkpoints in native
memory and follows the paths: arithmetic, branches, loads and stores, plain calls of helpers, calls of the program's
own functions, number iterators, comparison of states, precision; check_native.py is its loop. Python decides what
depends on names and types: callbacks, kernel functions, special fields and slots, C types, the context. The core
hands such an instruction over with a reason (reason.py), Python sees the same state through views (state.py, env.py)
and hands it back; refuse.py says what the core refuses. A rule is in one half only: Python calls the core's
(bounds.py, tnum.py, mem.py, stack.py and precision.py are such bindings). With a log the core goes one instruction at
a time. What Python decided about a load or a constant is remembered by instruction.

Checked:

- form: opcodes, reserved fields, register numbers, 64-bit immediates in two slots, map references (resolve.py, check.py)
- shape: jumps within their function, every instruction reachable, each function ends in an exit or a jump (cfg.py)
- registers are written before they are read; R10 is never written; R1 to R5 are gone after a call
- every load and store: stack within 512 bytes and aligned, map values, keys and ring buffer records within their size
  for each value the offset can have, null-checked first, read-only and write-only maps honoured (mem_native.py, stack_native.py)
- the context: reads only, aligned, within twelve arguments; types of tp_btf arguments; `max_ctx_offset`,
  `max_tp_access` for the check at attach (ctx.py)
- pointer arithmetic: on pointers that allow it, with bounded numbers, never 32-bit (alu_insn_native.py)
- scalars: known bits, signed and unsigned ranges in 64 and 32 bits, equal and offset-linked registers (tnum_native.py,
  bounds_native.py, alu_native.py, branch_native.py, jmp_native.py)
- helpers: program type, GPL, prototype, argument memory, map kind, constant strings and formats (call_native.py, call.py,
  format.py, helpers/table.py)
- what was acquired is released, once, on every path (refs_native.py)
- ring buffer records are submitted or discarded once on every path, dynptrs and number iterators are made, used and
  ended on the stack, with everything that was had from them (dynptr.py, iter_native.py, slots.py)
- sections of spin locks, RCU and preemption are closed on every path, and what may be called in them (section.py)
- functions: eight frames, stack depth, callbacks of bpf_loop and bpf_for_each_map_elem with their return range (func_native.py,
  func.py)
- tail calls in functions: where one succeeds the function is over, and its result is any number (func.py, btf_func.py)
- global functions: each once, on its own, for every argument that its BTF prototype and tags allow; calls check the arguments
  (global_func.py, subprog_args.py)
- every path ends: loops make progress, at most 1,000,000 instructions are processed, 8,192 branches wait,
  2 GiB of states are kept (prune_native.py, state_native.py); stack that nobody reads again is not compared
  (liveness_native.py)
- kernel pointers: loads by the C type, which the code generator makes fault-free (btf_access.py)

Not checked here: whether a tail-called program may be called (the map's affair), what attach checks against
`max_ctx_offset`. Refused by name: kernel functions that are not in btf/kfuncs.py, workqueues, per-CPU kptrs, dynptrs of
packets and files, exceptions, one call that makes objects of different types.

Kernel: kernel/bpf/verifier.c.
"""

from fastrtp.verifier.api import AttachTarget, InsnAux, LoadAttr, MapLike, SubprogInfo, VerifiedProgram, VerifierStats
from fastrtp.verifier.cache import VerifiedCache
from fastrtp.verifier.rules.check import bpf_check

__all__ = [
    "AttachTarget",
    "InsnAux",
    "LoadAttr",
    "MapLike",
    "SubprogInfo",
    "VerifiedCache",
    "VerifiedProgram",
    "VerifierStats",
    "bpf_check",
]
