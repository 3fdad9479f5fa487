/* System calls by process: how many, how many failed, and the time spent in them. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define TASK_COMM_LEN 16
#define MAX_ERRNO 4095

char LICENSE[] SEC("license") = "GPL";

struct syscall_stat {
	__u64 count;
	__u64 errors;
	__u64 total_ns;
	char comm[TASK_COMM_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32); /* thread */
	__type(value, __u64);
} entered SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32); /* pid */
	__type(value, struct syscall_stat);
} syscount SEC(".maps");

SEC("raw_tp/sys_enter")
int on_enter(__u64 *ctx)
{
	__u32 pid = bpf_get_current_pid_tgid();
	__u64 now = bpf_ktime_get_ns();

	bpf_map_update_elem(&entered, &pid, &now, BPF_ANY);
	return 0;
}

SEC("raw_tp/sys_exit")
int on_exit(__u64 *ctx)
{
	__u32 pid = bpf_get_current_pid_tgid();
	__u64 *since = bpf_map_lookup_elem(&entered, &pid);
	long ret = ctx[1];
	struct syscall_stat *stat;

	if (!since)
		return 0;
	stat = bpf_map_lookup_elem(&syscount, &pid);
	if (!stat) {
		struct syscall_stat zero = {};

		bpf_get_current_comm(&zero.comm, sizeof(zero.comm));
		bpf_map_update_elem(&syscount, &pid, &zero, BPF_NOEXIST);
		stat = bpf_map_lookup_elem(&syscount, &pid);
		if (!stat)
			return 0;
	}
	__sync_fetch_and_add(&stat->count, 1);
	if (ret < 0 && ret >= -MAX_ERRNO)
		__sync_fetch_and_add(&stat->errors, 1);
	__sync_fetch_and_add(&stat->total_ns, bpf_ktime_get_ns() - *since);
	bpf_map_delete_elem(&entered, &pid);
	return 0;
}
