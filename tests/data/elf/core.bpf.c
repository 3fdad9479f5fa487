/* CO-RE relocations of every kind, each result in its own slot. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define CORE __attribute__((preserve_access_index))
#define SLOTS 64

char LICENSE[] SEC("license") = "GPL";

__u64 out[SLOTS];

/* fewer members than the kernel's, in another order */
struct task_struct___mine {
	char comm[16];
	int pid;
	int not_there;
	struct list_head *children;
} CORE;

struct nothing_like_it {
	int x;
} CORE;

struct list_head___match {
	struct list_head___match *prev;
} CORE;

struct list_head___no_match {
	int prev;
} CORE;

enum pid_type___mine {
	PIDTYPE_PGID___mine = 77,
	PIDTYPE_NEVER = 78,
};

struct tcp_sock___mine {
	__u32 repair : 1, nonagle : 4;
} CORE;

struct sk_buff___mine {
	union {
		struct {
			__u16 queue_mapping;
		};
	};
} CORE;

struct mm_struct___mine {
	unsigned long saved_auxv[2];
} CORE;

#define ELEMENT_INFOS(base, ptr, field)                                                                                          \
	do {                                                                                                                     \
		out[base] = __CORE_RELO(ptr, field, BYTE_OFFSET);                                                               \
		out[base + 1] = __CORE_RELO(ptr, field, BYTE_SIZE);                                                             \
		out[base + 2] = __CORE_RELO(ptr, field, EXISTS);                                                                \
	} while (0)

#define FIELD_INFOS(base, ptr, field)                                                                                            \
	do {                                                                                                                     \
		ELEMENT_INFOS(base, ptr, field);                                                                                 \
		out[base + 3] = __CORE_RELO(ptr, field, SIGNED);                                                                \
		out[base + 4] = __CORE_RELO(ptr, field, LSHIFT_U64);                                                            \
		out[base + 5] = __CORE_RELO(ptr, field, RSHIFT_U64);                                                            \
	} while (0)

SEC("raw_tp/fields")
int fields(__u64 *ctx)
{
	struct task_struct___mine *task = (void *)ctx[0];
	struct tcp_sock___mine *sock = (void *)ctx[1];

	FIELD_INFOS(0, task, pid);
	ELEMENT_INFOS(6, task, comm[3]);
	FIELD_INFOS(12, sock, nonagle);
	FIELD_INFOS(18, ((struct sk_buff___mine *)ctx[2]), queue_mapping);
	ELEMENT_INFOS(24, ((struct mm_struct___mine *)ctx[3]), saved_auxv[1]);
	out[30] = bpf_core_field_exists(task->not_there);
	return 0;
}

SEC("raw_tp/unguarded")
int unguarded(__u64 *ctx)
{
	struct task_struct___mine *task = (void *)ctx[0];

	return bpf_core_field_offset(task->not_there);
}

SEC("raw_tp/types")
int types(__u64 *ctx)
{
	out[32] = bpf_core_type_id_local(struct task_struct___mine);
	out[33] = bpf_core_type_id_kernel(struct list_head);
	out[34] = bpf_core_type_exists(struct task_struct___mine);
	out[35] = bpf_core_type_exists(struct nothing_like_it);
	out[36] = bpf_core_type_size(struct list_head);
	out[37] = bpf_core_type_size(struct nothing_like_it);
	out[38] = bpf_core_type_matches(struct list_head___match);
	out[39] = bpf_core_type_matches(struct list_head___no_match);
	out[40] = bpf_core_type_exists(pid_t);
	out[41] = bpf_core_type_matches(struct list_head);
	return 0;
}

SEC("raw_tp/enums")
int enums(__u64 *ctx)
{
	out[48] = bpf_core_enum_value_exists(enum pid_type___mine, PIDTYPE_PGID___mine);
	out[49] = bpf_core_enum_value(enum pid_type___mine, PIDTYPE_PGID___mine);
	out[50] = bpf_core_enum_value_exists(enum pid_type___mine, PIDTYPE_NEVER);
	return 0;
}

SEC("tp_btf/sched_switch")
int direct(__u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1];

	return prev->pid + prev->se.load.inv_weight;
}
