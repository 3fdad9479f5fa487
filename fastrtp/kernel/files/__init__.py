"""Open files, ids and references: what every object of the kernel is held by, and the caller's memory (`uaccess`).

Kernel counterpart: fs/file.c, lib/idr.c, lib/usercopy.c. Must not know: what a file stands for.
"""
