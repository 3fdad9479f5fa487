/* Programs that are started. */
#include "vmlinux.h"
#include "tools.bpf.h"

struct event {
	__u64 time_ns;
	__u32 pid;
	__u32 cpu;
	char comm[TASK_COMM_LEN];
	char filename[128];
};

EVENTS(answer);

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	struct event event = {};

	if (!is_wanted(task->pid))
		return 0;
	event.time_ns = bpf_ktime_get_ns();
	event.pid = task->pid;
	event.cpu = bpf_get_smp_processor_id();
	bpf_get_current_comm(&event.comm, sizeof(event.comm));
	bpf_probe_read_kernel_str(&event.filename, sizeof(event.filename), bprm->filename);
	bpf_ringbuf_output(&answer, &event, sizeof(event), 0);
	return 0;
}
