"""What the verifier says: the kernel's log, word by word, and the report for people, with C lines and hints.

`refuse` puts the core's numbers into the kernel's words, one row a reason. Must not know: how anything is decided.
"""
