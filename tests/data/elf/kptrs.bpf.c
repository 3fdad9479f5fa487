/* kptrs, objects of the program, lists and trees (test_kptr.py names what is said of each program). */
#define SEC(name) __attribute__((section(name), used))
#define __ksym __attribute__((section(".ksyms")))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define __kptr __attribute__((btf_type_tag("kptr")))
#define __kptr_untrusted __attribute__((btf_type_tag("kptr_untrusted")))
#define __contains(name, node) __attribute__((btf_decl_tag("contains:" #name ":" #node)))
#define private(name) SEC(".data." #name) __attribute__((aligned(8)))
#define NULL ((void *)0)
#define container_of(ptr, type, member) ((type *)((void *)(ptr) - __builtin_offsetof(type, member)))

typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef _Bool bool;

struct bpf_spin_lock { __u32 val; };
struct bpf_list_head { __u64 __opaque[2]; } __attribute__((aligned(8)));
struct bpf_list_node { __u64 __opaque[3]; } __attribute__((aligned(8)));
struct bpf_rb_root { __u64 __opaque[2]; } __attribute__((aligned(8)));
struct bpf_rb_node { __u64 __opaque[4]; } __attribute__((aligned(8)));
struct bpf_refcount { __u32 __opaque[1]; } __attribute__((aligned(4)));

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct task_struct { int pid; int tgid; struct task_struct *group_leader; };
struct file { __u64 f_pos; };
#pragma clang attribute pop

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static long (*bpf_spin_lock)(struct bpf_spin_lock *lock) = (void *)93;
static long (*bpf_spin_unlock)(struct bpf_spin_lock *lock) = (void *)94;
static long (*bpf_probe_read_kernel)(void *dst, __u32 size, const void *src) = (void *)113;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;
static void *(*bpf_kptr_xchg)(void *field, void *value) = (void *)194;

extern void *bpf_obj_new_impl(__u64 local_type_id, void *meta) __ksym;
extern void bpf_obj_drop_impl(void *kptr, void *meta) __ksym;
extern void *bpf_refcount_acquire_impl(void *kptr, void *meta) __ksym;
extern int bpf_list_push_front_impl(struct bpf_list_head *head, struct bpf_list_node *node, void *meta, __u64 off) __ksym;
extern int bpf_list_push_back_impl(struct bpf_list_head *head, struct bpf_list_node *node, void *meta, __u64 off) __ksym;
extern struct bpf_list_node *bpf_list_pop_front(struct bpf_list_head *head) __ksym;
extern struct bpf_list_node *bpf_list_pop_back(struct bpf_list_head *head) __ksym;
extern struct bpf_list_node *bpf_list_front(struct bpf_list_head *head) __ksym;
extern struct bpf_list_node *bpf_list_back(struct bpf_list_head *head) __ksym;
extern struct bpf_rb_node *bpf_rbtree_remove(struct bpf_rb_root *root, struct bpf_rb_node *node) __ksym;
extern int bpf_rbtree_add_impl(struct bpf_rb_root *root, struct bpf_rb_node *node,
			       bool (less)(struct bpf_rb_node *a, const struct bpf_rb_node *b), void *meta, __u64 off) __ksym;
extern struct bpf_rb_node *bpf_rbtree_first(struct bpf_rb_root *root) __ksym;
extern struct task_struct *bpf_task_acquire(struct task_struct *p) __ksym;
extern void bpf_task_release(struct task_struct *p) __ksym;
extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym;

#define bpf_obj_new(type) ((type *)bpf_obj_new_impl(__builtin_btf_type_id(*(type *)0, 0), NULL))
#define bpf_obj_drop(kptr) bpf_obj_drop_impl(kptr, NULL)
#define bpf_refcount_acquire(kptr) bpf_refcount_acquire_impl(kptr, NULL)
#define push_front(head, node) bpf_list_push_front_impl(head, node, NULL, 0)
#define push_back(head, node) bpf_list_push_back_impl(head, node, NULL, 0)
#define rbtree_add(root, node, less) bpf_rbtree_add_impl(root, node, less, NULL, 0)

struct plain { __u64 a; __u64 b; };
struct item { __u64 key; struct bpf_list_node list; struct bpf_rb_node tree; struct bpf_refcount refs; __u64 value; };
struct other { __u64 key; struct bpf_list_node list; };

struct held { __u64 count; struct plain __kptr *own; struct task_struct __kptr *task; struct task_struct __kptr_untrusted *seen; };
struct { __uint(type, 2); __uint(max_entries, 2); __type(key, __u32); __type(value, struct held); } held SEC(".maps");
struct { __uint(type, 1); __uint(max_entries, 8); __type(key, __u32); __type(value, struct held); } hash SEC(".maps");
struct { __uint(type, 6); __uint(max_entries, 1); __type(key, __u32); __type(value, struct held); } percpu SEC(".maps");

struct queue { struct bpf_spin_lock lock; struct bpf_list_head head __contains(other, list); __u64 length; };
struct { __uint(type, 1); __uint(max_entries, 4); __type(key, __u32); __type(value, struct queue); } queues SEC(".maps");

private(A) struct bpf_spin_lock lock;
private(A) struct bpf_list_head head __contains(item, list);
private(A) struct bpf_rb_root root __contains(item, tree);
private(B) struct bpf_spin_lock lock2;
private(B) struct bpf_list_head head2 __contains(other, list);

char LICENSE[] SEC("license") = "GPL";

__u64 out[16];
__u64 count;

static struct held *value(void *map, __u32 key)
{
	return bpf_map_lookup_elem(map, &key);
}

static bool less(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return container_of(a, struct item, tree)->key < container_of(b, struct item, tree)->key;
}

/* sys_enter(regs, id) */
SEC("?tp_btf/sys_enter")
int swap(__u64 *ctx)
{
	struct held *v = value(&held, 0);
	struct plain *made, *old;

	if (!v)
		return 0;
	made = bpf_obj_new(struct plain);
	if (!made)
		return 0;
	made->a = ctx[1];
	made->b++;
	old = bpf_kptr_xchg(&v->own, made);
	if (old) {
		out[0] = old->a;
		out[1] = old->b;
		bpf_obj_drop(old);
	}
	return 0;
}

SEC("?raw_tp/sys_enter")
int swap_raw(__u64 *ctx)
{
	struct held *v = value(&held, 0);
	struct plain *made, *old;

	if (!v)
		return 0;
	made = bpf_obj_new(struct plain);
	if (!made)
		return 0;
	old = bpf_kptr_xchg(&v->own, made);
	if (old)
		bpf_obj_drop(old);
	return 0;
}

SEC("?tp_btf/sys_enter")
int peek(__u64 *ctx)
{
	struct held *v = value(&held, 0);
	struct plain *p;

	if (!v)
		return 0;
	p = v->own;
	if (p) {
		out[2] = p->a;
		p->b = 77;
	}
	return 0;
}

SEC("?tp_btf/sys_enter")
int fill_hash(__u64 *ctx)
{
	__u32 key = ctx[1];
	struct held zero = {}, *v;
	struct plain *made, *old;

	bpf_map_update_elem(&hash, &key, &zero, 0);
	v = bpf_map_lookup_elem(&hash, &key);
	if (!v)
		return 0;
	v->count++;
	made = bpf_obj_new(struct plain);
	if (!made)
		return 0;
	old = bpf_kptr_xchg(&v->own, made);
	if (old) {
		out[0]++;
		bpf_obj_drop(old);
	}
	return 0;
}

SEC("?tp_btf/sys_enter")
int fill_percpu(__u64 *ctx)
{
	struct held *v = value(&percpu, 0);
	struct plain *made, *old;

	if (!v)
		return 0;
	made = bpf_obj_new(struct plain);
	if (!made)
		return 0;
	old = bpf_kptr_xchg(&v->own, made);
	if (old) {
		out[0]++;
		bpf_obj_drop(old);
	}
	return 0;
}

SEC("?tp_btf/sys_enter")
int tasks(__u64 *ctx)
{
	struct task_struct *current = bpf_get_current_task_btf(), *task, *old, *seen;
	struct held *v = value(&held, 0);

	if (!v)
		return 0;
	v->seen = current;
	seen = v->seen;
	if (seen)
		out[3] = seen->pid;
	task = bpf_task_acquire(current);
	if (!task)
		return 0;
	out[4] = task->pid;
	old = bpf_kptr_xchg(&v->task, task);
	if (old) {
		out[5]++;
		bpf_task_release(old);
	}
	bpf_rcu_read_lock();
	task = v->task;
	if (task)
		out[6] = task->tgid;
	bpf_rcu_read_unlock();
	task = bpf_task_from_pid(current->pid);
	if (task) {
		out[7] = task->pid;
		bpf_task_release(task);
	}
	task = bpf_task_from_pid(-1);
	out[8] = task != NULL;
	if (task)
		bpf_task_release(task);
	return 0;
}

/* a queue under a lock: push id; every third one also takes one from the other end */
SEC("?tp_btf/sys_enter")
int list(__u64 *ctx)
{
	struct bpf_list_node *node, *first;
	struct item *item = bpf_obj_new(struct item);

	if (!item)
		return 0;
	item->key = ctx[1];
	bpf_spin_lock(&lock);
	if (ctx[1] & 1)
		push_front(&head, &item->list);
	else
		push_back(&head, &item->list);
	item->value = item->key * 2;
	first = bpf_list_front(&head);
	if (first)
		out[0] = container_of(first, struct item, list)->key;
	first = bpf_list_back(&head);
	if (first)
		out[1] = container_of(first, struct item, list)->key;
	bpf_spin_unlock(&lock);
	if (ctx[1] % 3)
		return 0;
	bpf_spin_lock(&lock);
	node = bpf_list_pop_back(&head);
	bpf_spin_unlock(&lock);
	if (!node)
		return 0;
	item = container_of(node, struct item, list);
	out[2] = item->key;
	out[3] = item->value;
	bpf_obj_drop(item);
	return 0;
}

/* a tree: put id in, and above 100 take all out in order */
SEC("?tp_btf/sys_enter")
int tree(__u64 *ctx)
{
	struct bpf_rb_node *node;
	struct item *item;

	if (ctx[1] > 100) {
		for (int i = 0; i < 16; i++) {
			bpf_spin_lock(&lock);
			node = bpf_rbtree_first(&root);
			if (!node) {
				bpf_spin_unlock(&lock);
				return 0;
			}
			node = bpf_rbtree_remove(&root, node);
			bpf_spin_unlock(&lock);
			if (!node)
				return 0;
			item = container_of(node, struct item, tree);
			out[i] = item->key;
			count++;
			bpf_obj_drop(item);
		}
		return 0;
	}
	item = bpf_obj_new(struct item);
	if (!item)
		return 0;
	item->key = ctx[1];
	bpf_spin_lock(&lock);
	rbtree_add(&root, &item->tree, less);
	bpf_spin_unlock(&lock);
	return 0;
}

/* one object in a tree and a list */
SEC("?tp_btf/sys_enter")
int shared(__u64 *ctx)
{
	struct item *item = bpf_obj_new(struct item), *twin;
	struct bpf_list_node *node;

	if (!item)
		return 0;
	item->key = ctx[1];
	twin = bpf_refcount_acquire(item);
	bpf_spin_lock(&lock);
	rbtree_add(&root, &item->tree, less);
	push_back(&head, &twin->list);
	bpf_spin_unlock(&lock);
	if (ctx[1] != 5)
		return 0;
	bpf_spin_lock(&lock);
	node = bpf_list_pop_front(&head);
	bpf_spin_unlock(&lock);
	if (node) {
		item = container_of(node, struct item, list);
		out[0] = item->key;
		bpf_obj_drop(item);
	}
	return 0;
}

/* put in twice: the second one is dropped */
SEC("?tp_btf/sys_enter")
int twice(__u64 *ctx)
{
	struct item *item = bpf_obj_new(struct item), *twin;

	if (!item)
		return 0;
	twin = bpf_refcount_acquire(item);
	bpf_spin_lock(&lock);
	out[0] = push_back(&head, &item->list);
	out[1] = push_back(&head, &twin->list);
	bpf_spin_unlock(&lock);
	return 0;
}

SEC("?tp_btf/sys_enter")
int queue(__u64 *ctx)
{
	__u32 key = ctx[1] & 3;
	struct queue zero = {}, *q;
	struct other *o;

	bpf_map_update_elem(&queues, &key, &zero, 1);
	q = bpf_map_lookup_elem(&queues, &key);
	if (!q)
		return 0;
	o = bpf_obj_new(struct other);
	if (!o)
		return 0;
	o->key = ctx[1];
	bpf_spin_lock(&q->lock);
	push_back(&q->head, &o->list);
	q->length++;
	bpf_spin_unlock(&q->lock);
	return 0;
}

SEC("?tp_btf/sys_enter")
int cast(__u64 *ctx)
{
	struct task_struct *task = bpf_rdonly_cast((void *)bpf_get_current_task_btf(), __builtin_btf_type_id(*(struct task_struct *)0, 1));

	out[0] = task->pid;
	out[1] = task->group_leader->pid;
	return 0;
}

/* what is refused */
#define BAD(name, body) SEC("?tp_btf/sys_enter") int name(__u64 *ctx) { struct held *v = value(&held, 0); if (!v) return 0; body; return 0; }
#define NEW(type, name) type *name = bpf_obj_new(type); if (!name) return 0

BAD(leak, NEW(struct plain, p); p->a = 1)
BAD(unchecked, struct plain *p = bpf_obj_new(struct plain); p->a = 1; bpf_obj_drop(p))
BAD(dropped_twice, NEW(struct plain, p); bpf_obj_drop(p); bpf_obj_drop(p))
BAD(used_after_drop, NEW(struct plain, p); bpf_obj_drop(p); out[0] = p->a)
BAD(drop_null, struct plain *p = bpf_obj_new(struct plain); bpf_obj_drop(p))
BAD(past_object, NEW(struct plain, p); out[0] = *(volatile __u64 *)((void *)p + 16); bpf_obj_drop(p))
BAD(xchg_leak, NEW(struct plain, p); bpf_kptr_xchg(&v->own, p))
BAD(xchg_used_after, NEW(struct plain, p); struct plain *o = bpf_kptr_xchg(&v->own, p); if (o) bpf_obj_drop(o); p->a = 2)
BAD(xchg_wrong_type, NEW(struct other, p); struct plain *o = bpf_kptr_xchg(&v->own, p); if (o) bpf_obj_drop(o))
BAD(xchg_not_kptr, NEW(struct plain, p); struct plain *o = bpf_kptr_xchg(&v->count, p); if (o) bpf_obj_drop(o))
BAD(xchg_unreferenced, struct task_struct *o = bpf_kptr_xchg(&v->seen, NULL); if (o) bpf_task_release(o))
BAD(xchg_borrowed, struct task_struct *o = bpf_kptr_xchg(&v->task, bpf_get_current_task_btf()); if (o) bpf_task_release(o))
BAD(store_owned, *(volatile __u64 *)&v->own = 0)
BAD(store_number, *(volatile __u64 *)&v->seen = 5)
BAD(store_other, v->seen = (void *)v)
BAD(load_part, out[0] = *(volatile __u32 *)&v->own)
BAD(load_misplaced, out[0] = *(volatile __u64 *)((void *)&v->own + 4))
BAD(kptr_unchecked, out[0] = v->own->a)
BAD(untrusted_release, struct task_struct *t = v->seen; if (t) bpf_task_release(t))
BAD(rcu_release, struct task_struct *t = v->task; if (t) bpf_task_release(t))
BAD(task_leak, struct task_struct *t = bpf_task_acquire(bpf_get_current_task_btf()))
BAD(task_write, struct task_struct *t = bpf_task_acquire(bpf_get_current_task_btf()); if (t) { *(volatile int *)&t->pid = 1; bpf_task_release(t); })
BAD(value_as_data, bpf_probe_read_kernel(v, sizeof(*v), NULL))
BAD(push_unlocked, NEW(struct item, i); push_back(&head, &i->list))
BAD(push_other_lock, NEW(struct item, i); bpf_spin_lock(&lock2); push_back(&head, &i->list); bpf_spin_unlock(&lock2))
BAD(push_other_type, NEW(struct other, i); bpf_spin_lock(&lock); push_back(&head, &i->list); bpf_spin_unlock(&lock))
BAD(push_wrong_node, NEW(struct item, i); bpf_spin_lock(&lock); push_back(&head, (void *)&i->tree); bpf_spin_unlock(&lock))
BAD(push_no_node, NEW(struct item, i); bpf_spin_lock(&lock); push_back(&head, (void *)&i->value); bpf_spin_unlock(&lock))
BAD(push_no_head, NEW(struct item, i); bpf_spin_lock(&lock); push_back((void *)&root, &i->list); bpf_spin_unlock(&lock))
BAD(push_twice, NEW(struct item, i); bpf_spin_lock(&lock); push_back(&head, &i->list); push_back(&head, &i->list); bpf_spin_unlock(&lock))
BAD(used_after_unlock, NEW(struct item, i); bpf_spin_lock(&lock); push_back(&head, &i->list); bpf_spin_unlock(&lock); i->key = 1)
BAD(drop_in_list, NEW(struct item, i); bpf_spin_lock(&lock); push_back(&head, &i->list); bpf_obj_drop(i); bpf_spin_unlock(&lock))
BAD(new_while_locked, bpf_spin_lock(&lock); struct item *i = bpf_obj_new(struct item); bpf_spin_unlock(&lock); if (i) bpf_obj_drop(i))
BAD(pop_leak, bpf_spin_lock(&lock); bpf_list_pop_front(&head); bpf_spin_unlock(&lock))
BAD(node_as_data, NEW(struct item, i); out[0] = *(volatile __u64 *)&i->list; bpf_obj_drop(i))
BAD(refs_as_data, NEW(struct item, i); *(volatile __u32 *)&i->refs = 7; bpf_obj_drop(i))
BAD(head_as_data, out[0] = *(volatile __u64 *)&head)
BAD(drop_inside, bpf_spin_lock(&lock); struct bpf_list_node *n = bpf_list_pop_front(&head); bpf_spin_unlock(&lock); if (n) bpf_obj_drop(n))
BAD(front_after_unlock, bpf_spin_lock(&lock); struct bpf_list_node *n = bpf_list_front(&head); bpf_spin_unlock(&lock); if (n) out[0] = container_of(n, struct item, list)->key)
BAD(remove_owned_none, NEW(struct item, i); bpf_spin_lock(&lock); bpf_rbtree_remove(&root, (void *)&v->count); bpf_spin_unlock(&lock); bpf_obj_drop(i))
BAD(no_refcount, NEW(struct other, i); struct other *t = bpf_refcount_acquire(i); bpf_obj_drop(i); if (t) bpf_obj_drop(t))
BAD(rcu_after_section, bpf_rcu_read_lock(); struct task_struct *t = v->task; bpf_rcu_read_unlock(); if (t) { struct task_struct *a = bpf_task_acquire(t); if (a) bpf_task_release(a); })
BAD(from_pid_leak, bpf_task_from_pid(1))
BAD(from_pid_unchecked, bpf_task_release(bpf_task_from_pid(1)))
BAD(cast_no_struct, out[0] = *(__u64 *)bpf_rdonly_cast(v, __builtin_btf_type_id(*(int *)0, 1)))
BAD(acquire_number, struct task_struct *t = bpf_task_acquire((void *)ctx[1]); if (t) bpf_task_release(t))

static bool less_unlocks(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	bpf_spin_unlock(&lock);
	return 0;
}

static bool less_removes(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	bpf_rbtree_remove(&root, a);
	return 0;
}

static int less_two(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return 2;
}

BAD(order_unlocks, NEW(struct item, i); bpf_spin_lock(&lock); rbtree_add(&root, &i->tree, less_unlocks); bpf_spin_unlock(&lock))
BAD(order_removes, NEW(struct item, i); bpf_spin_lock(&lock); rbtree_add(&root, &i->tree, less_removes); bpf_spin_unlock(&lock))
BAD(order_two, NEW(struct item, i); bpf_spin_lock(&lock); rbtree_add(&root, &i->tree, (void *)less_two); bpf_spin_unlock(&lock))

SEC("?raw_tp/sys_enter")
int list_raw(__u64 *ctx)
{
	NEW(struct other, i);
	bpf_spin_lock(&lock2);
	push_back(&head2, &i->list);
	bpf_spin_unlock(&lock2);
	return 0;
}
