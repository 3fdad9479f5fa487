"""From a kernel's source to recipes: TP_fast_assign, read by a program and turned around.

    headers   where a tree has trace headers, and the events in them (TRACE_EVENT and its kin, macros expanded by cpp)
    assigns   TP_fast_assign walked statement by statement: for each recorded field the C expression that it holds
    index     what else the tree says that expressions need: inline functions, macros, constants
    known     functions whose inverse a person wrote down
    solve     the expression turned around: which member of which argument a field tells, and by which operations
    make      all of it for a whole tree; `report` counts what was inverted, by which way, and lists the rest

What comes out are facts (record/recipes/data.py says in which form): names, types, paths, operations; no code.
Kernel: include/trace/trace_events.h, include/trace/stages/*.h

Must not know: recordings, BTF.
"""
