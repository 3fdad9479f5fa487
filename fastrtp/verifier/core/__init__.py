"""The native core: follows every path, instruction by instruction, with the stack, jumps, pruning, loops and liveness.

It gives control back with a number (`reason`): a path is at its end, a refusal, or work that needs types or names, which is in
`rules`. `call_table` is the helpers' rows as the core reads them. Must not know: BTF, Python objects, the log's words.
"""
