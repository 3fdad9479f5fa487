/* How long soft interrupts run, by kind. */
#include "vmlinux.h"
#include "tools.bpf.h"

struct vector {
	__u32 vector;
};

HISTS(answer, struct vector);

SEC("tp_btf/softirq_entry")
int BPF_PROG(on_entry, unsigned int vector)
{
	begin(bpf_get_smp_processor_id());
	return 0;
}

SEC("tp_btf/softirq_exit")
int BPF_PROG(on_exit, unsigned int vector)
{
	struct vector key = { .vector = vector };
	struct hist *hist;
	__u64 took;

	if (!end(bpf_get_smp_processor_id(), &took))
		return 0;
	hist = element(&answer, &key, &no_hist);
	if (hist)
		count_in(hist, took);
	return 0;
}
