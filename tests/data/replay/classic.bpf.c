/* Classic tracepoint programs: records as recorded, and single system calls (test_replay_classic.py). */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct enter { u64 pad, nr, args[3]; };
struct leave { u64 pad, nr; s64 ret; };
struct raw { u64 pad; s64 id; u64 args[6]; };
struct exec { u64 pad; u32 filename; int pid, old_pid; };
struct name { char text[32]; };

u64 entered, left, args_sum, wrong, raw_entered, raw_sum;
s64 written;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct name);
	__type(value, u64);
} executed SEC(".maps");

SEC("tp/syscalls/sys_enter_write") int on_write(struct enter *ctx)
{
	__sync_fetch_and_add(&entered, 1);
	__sync_fetch_and_add(&args_sum, ctx->args[0] + ctx->args[2]);
	if (ctx->nr != 1)
		__sync_fetch_and_add(&wrong, 1);
	return 0;
}

SEC("tp/syscalls/sys_exit_write") int on_written(struct leave *ctx)
{
	__sync_fetch_and_add(&left, 1);
	__sync_fetch_and_add(&written, ctx->ret);
	if (ctx->nr != 1)
		__sync_fetch_and_add(&wrong, 1);
	return 0;
}

SEC("tp/raw_syscalls/sys_enter") int on_enter(struct raw *ctx)
{
	__sync_fetch_and_add(&raw_entered, 1);
	if (ctx->id == 1)
		__sync_fetch_and_add(&raw_sum, ctx->args[0] + ctx->args[2]);
	return 0;
}

SEC("?tp/sched/sched_process_exec") int on_exec(struct exec *ctx)
{
	struct name key = {};
	u64 one = 1, *count;

	bpf_probe_read_kernel_str(key.text, sizeof(key.text), (void *)ctx + (ctx->filename & 0xffff));
	count = bpf_map_lookup_elem(&executed, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		bpf_map_update_elem(&executed, &key, &one, BPF_ANY);
	return 0;
}
