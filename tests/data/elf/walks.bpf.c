/* Pointers that are loaded from kernel objects: which are trusted, and which may be NULL (test_walks.py). */
#define SEC(name) __attribute__((section(name), used))
#define __ksym __attribute__((section(".ksyms")))
#define NULL ((void *)0)

typedef unsigned int __u32;
typedef unsigned long long __u64;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct inode { __u64 i_ino; };
struct file { struct inode *f_inode; };
struct mm_struct { struct file *exe_file; __u64 start_code; };
struct cgroup { int level; };
struct css_set { struct cgroup *dfl_cgrp; };
struct task_struct {
	int pid;
	struct task_struct *real_parent, *parent, *group_leader, *last_wakee;
	struct css_set *cgroups;
	struct mm_struct *mm;
};
struct sock { int sk_err; };
struct sk_buff { struct sock *sk; __u32 len; };
#pragma clang attribute pop

static long (*bpf_get_task_stack)(struct task_struct *task, void *buf, __u32 size, __u64 flags) = (void *)141;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;
static long (*bpf_probe_read_kernel)(void *dst, __u32 size, const void *src) = (void *)113;
static long (*bpf_trace_printk)(const char *fmt, __u32 size, ...) = (void *)6;

extern struct task_struct *bpf_task_acquire(struct task_struct *p) __ksym;
extern void bpf_task_release(struct task_struct *p) __ksym;
extern struct cgroup *bpf_cgroup_acquire(struct cgroup *cgrp) __ksym;
extern void bpf_cgroup_release(struct cgroup *cgrp) __ksym;
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;

char LICENSE[] SEC("license") = "GPL";

__u64 out[4];
__u64 stack[8];

#define CASE(name, body) SEC("?tp_btf/sys_enter") int name(__u64 *ctx) \
	{ struct task_struct *task = bpf_get_current_task_btf(); body; return 0; }
#define HOLD(what) struct task_struct *held = bpf_task_acquire(what); if (held) { out[0] = held->pid; bpf_task_release(held); }

CASE(parent, out[0] = task->real_parent->pid)
CASE(hold_real_parent, HOLD(task->real_parent))
CASE(hold_leader, HOLD(task->group_leader))
CASE(hold_parent, HOLD(task->parent))
CASE(hold_leaders_parent, HOLD(task->group_leader->real_parent))
CASE(hold_parents_leader, HOLD(task->parent->group_leader))
CASE(hold_wakee, HOLD(task->last_wakee))
CASE(hold_after_unlock, bpf_rcu_read_lock(); struct task_struct *p = task->real_parent; bpf_rcu_read_unlock(); HOLD(p))
CASE(hold_cast, HOLD(bpf_rdonly_cast(task, __builtin_btf_type_id(*(struct task_struct *)0, 1))))
CASE(hold_cast_leader, struct task_struct *t = bpf_rdonly_cast(task, __builtin_btf_type_id(*(struct task_struct *)0, 1)); HOLD(t->group_leader))
CASE(cgroup, struct cgroup *c = bpf_cgroup_acquire(task->cgroups->dfl_cgrp); if (c) { out[0] = c->level; bpf_cgroup_release(c); })
CASE(exe_file_unchecked, out[0] = task->mm->exe_file->f_inode->i_ino)
CASE(stack_of_parent, bpf_get_task_stack(task->parent, stack, sizeof(stack), 0))
CASE(stack_of_leader, bpf_get_task_stack(task->group_leader, stack, sizeof(stack), 0))
CASE(stack_of_cast, struct task_struct *t = bpf_rdonly_cast(task, __builtin_btf_type_id(*(struct task_struct *)0, 1)); bpf_get_task_stack(t, stack, sizeof(stack), 0))
CASE(stack_of_mm, bpf_get_task_stack((void *)task->mm, stack, sizeof(stack), 0))
CASE(write_leader, task->group_leader->pid = 1)

SEC("?tp_btf/kfree_skb")
int skb(__u64 *ctx)
{
	struct sk_buff *buffer = (void *)ctx[0];

	out[0] = buffer->len;
	return 0;
}

SEC("?tp_btf/kfree_skb")
int skb_sock(__u64 *ctx)
{
	struct sk_buff *buffer = (void *)ctx[0];

	out[0] = buffer->sk->sk_err;
	return 0;
}

SEC("?tp_btf/kfree_skb")
int skb_sock_checked(__u64 *ctx)
{
	struct sk_buff *buffer = (void *)ctx[0];
	struct sock *sk = buffer->sk;

	if (sk)
		out[0] = sk->sk_err;
	return 0;
}

SEC("?tp_btf/sched_pi_setprio")
int null_arg(__u64 *ctx)
{
	struct task_struct *pi = (void *)ctx[1];

	out[0] = pi->pid;
	return 0;
}

SEC("?tp_btf/sched_pi_setprio")
int null_arg_checked(__u64 *ctx)
{
	struct task_struct *pi = (void *)ctx[1];

	if (pi) {
		HOLD(pi)
	}
	return 0;
}
