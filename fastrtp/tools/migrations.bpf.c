/* Tasks that are moved from a CPU to another. */
#include "vmlinux.h"
#include "tools.bpf.h"

struct move {
	__u32 pid;
	__s32 to;
	char comm[TASK_COMM_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct move);
	__type(value, __u64);
} answer SEC(".maps");

SEC("tp_btf/sched_migrate_task")
int BPF_PROG(on_migrate, struct task_struct *task, int dest_cpu)
{
	struct move move = { .to = dest_cpu };
	__u64 zero = 0, *count;

	if (!is_wanted(task->pid))
		return 0;
	move.pid = task->pid;
	BPF_CORE_READ_STR_INTO(&move.comm, task, comm);
	count = element(&answer, &move, &zero);
	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}
