/* How long interrupt handlers run, by number and name. */
#include "vmlinux.h"
#include "tools.bpf.h"

struct line {
	__s32 irq;
	char name[28];
};

struct opened {
	__u64 when;
	struct line line;
};

/* A handler is begun and ended on one CPU, and its name is recorded when it begins. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct opened);
} running SEC(".maps");

HISTS(answer, struct line);

SEC("tp_btf/irq_handler_entry")
int BPF_PROG(on_entry, int irq, struct irqaction *action)
{
	struct opened opens = { .when = bpf_ktime_get_ns() };
	__u32 cpu = bpf_get_smp_processor_id();

	opens.line.irq = irq;
	bpf_probe_read_kernel_str(&opens.line.name, sizeof(opens.line.name), action->name);
	bpf_map_update_elem(&running, &cpu, &opens, BPF_ANY);
	return 0;
}

SEC("tp_btf/irq_handler_exit")
int BPF_PROG(on_exit, int irq, struct irqaction *action, int ret)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct opened *opened = bpf_map_lookup_elem(&running, &cpu);
	struct hist *hist;

	if (!opened)
		return 0;
	hist = element(&answer, &opened->line, &no_hist);
	if (hist)
		count_in(hist, bpf_ktime_get_ns() - opened->when);
	bpf_map_delete_elem(&running, &cpu);
	return 0;
}
