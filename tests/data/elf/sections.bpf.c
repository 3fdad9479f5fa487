/* Every section name that is a raw tracepoint, and some that are not. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "MIT";

SEC("raw_tp/sched_switch") int on_raw_tp(void *ctx) { return 1; }
SEC("raw_tracepoint/sched_wakeup") int on_raw_tracepoint(void *ctx) { return 2; }
SEC("raw_tp.w/bpf_test_finish") int on_raw_tp_w(void *ctx) { return 3; }
SEC("raw_tracepoint.w/nbd_send_request") int on_raw_tracepoint_w(void *ctx) { return 4; }
SEC("tp_btf/task_rename") int on_tp_btf(void *ctx) { return 5; }
SEC("raw_tp") int on_bare(void *ctx) { return 6; }
SEC("?raw_tp/irq_handler_entry") int on_manual(void *ctx) { return 7; }
SEC("raw_tp/sched_switch") int on_second_in_section(void *ctx) { return 8; }
SEC("kprobe/do_nanosleep") int on_kprobe(void *ctx) { return 9; }
SEC("tracepoint/sched/sched_switch") int on_tracepoint(void *ctx) { return 10; }
SEC("fentry/do_unlinkat") int on_fentry(void *ctx) { return 11; }
SEC("?xdp") int on_xdp(void *ctx) { return 12; }
SEC("whatever") int on_unknown(void *ctx) { return 13; }
