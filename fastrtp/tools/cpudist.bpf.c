/* How long tasks stay on the CPU at a time; or how long they stay off it. */
#include "vmlinux.h"
#include "tools.bpf.h"

const volatile bool off_cpu = false;

HISTS(answer, struct who);

static __always_inline void done(struct task_struct *task)
{
	struct who who = {};
	struct hist *hist;
	__u64 took;

	if (!end(task->pid, &took))
		return;
	name_task(&who, task);
	hist = element(&answer, &who, &no_hist);
	if (hist)
		count_in(hist, took);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	struct task_struct *starts = off_cpu ? prev : next, *ends = off_cpu ? next : prev;

	if (ends->pid && is_wanted(ends->pid))
		done(ends);
	if (starts->pid && is_wanted(starts->pid))
		begin(starts->pid);
	return 0;
}
