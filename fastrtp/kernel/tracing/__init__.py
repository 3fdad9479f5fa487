"""Tracepoints and who listens: the registry, events of one's own, ftrace's buffer, perf's events on a tracepoint.

Kernel counterpart: kernel/trace (trace_events.c, bpf_trace.c, trace_event_perf.c). Must not know: bpf(2)'s attributes.
"""
