/* Kernel functions on objects, kptrs and timers of inner maps: what may be done and what not (README.md on the comments). */
#define SEC(name) __attribute__((section(name), used))
#define __ksym __attribute__((section(".ksyms")))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
#define __kptr __attribute__((btf_type_tag("kptr")))
#define __kptr_untrusted __attribute__((btf_type_tag("kptr_untrusted")))
#define __contains(name, node) __attribute__((btf_decl_tag("contains:" #name ":" #node)))
#define private(name) SEC(".data." #name) __attribute__((aligned(8)))
#define NULL ((void *)0)
#define barrier_var(var) asm volatile("" : "+r"(var))

typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef _Bool bool;

struct bpf_spin_lock { __u32 val; };
struct bpf_timer { __u64 __opaque[2]; } __attribute__((aligned(8)));
struct bpf_list_head { __u64 __opaque[2]; } __attribute__((aligned(8)));
struct bpf_list_node { __u64 __opaque[3]; } __attribute__((aligned(8)));
struct bpf_rb_root { __u64 __opaque[2]; } __attribute__((aligned(8)));
struct bpf_rb_node { __u64 __opaque[4]; } __attribute__((aligned(8)));
struct bpf_refcount { __u32 __opaque[1]; } __attribute__((aligned(4)));

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct task_struct { int pid; };
#pragma clang attribute pop

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_spin_lock)(struct bpf_spin_lock *lock) = (void *)93;
static long (*bpf_spin_unlock)(struct bpf_spin_lock *lock) = (void *)94;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;
static long (*bpf_timer_init)(struct bpf_timer *timer, void *map, __u64 flags) = (void *)169;
static long (*bpf_timer_set_callback)(struct bpf_timer *timer, void *callback) = (void *)170;
static long (*bpf_timer_start)(struct bpf_timer *timer, __u64 nsecs, __u64 flags) = (void *)171;
static long (*bpf_timer_cancel)(struct bpf_timer *timer) = (void *)172;
static void *(*bpf_kptr_xchg)(void *field, void *value) = (void *)194;

extern void *bpf_obj_new_impl(__u64 local_type_id, void *meta) __ksym;
extern void bpf_obj_drop_impl(void *kptr, void *meta) __ksym;
extern void *bpf_refcount_acquire_impl(void *kptr, void *meta) __ksym;
extern int bpf_list_push_front_impl(struct bpf_list_head *head, struct bpf_list_node *node, void *meta, __u64 off) __ksym;
extern struct bpf_list_node *bpf_list_pop_front(struct bpf_list_head *head) __ksym;
extern int bpf_rbtree_add_impl(struct bpf_rb_root *root, struct bpf_rb_node *node,
			       bool (less)(struct bpf_rb_node *a, const struct bpf_rb_node *b), void *meta, __u64 off) __ksym;
extern struct task_struct *bpf_task_acquire(struct task_struct *p) __ksym;
extern void bpf_task_release(struct task_struct *p) __ksym;
extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym;
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym;

#define type_id(type) __builtin_btf_type_id(*(type *)0, 0)
#define bpf_obj_new(type) ((type *)bpf_obj_new_impl(type_id(type), NULL))
#define bpf_obj_drop(kptr) bpf_obj_drop_impl(kptr, NULL)

struct plain { __u64 a; __u64 b; };
struct big { __u64 a[512]; };
struct page { __u64 a[511]; };
struct item { __u64 key; struct bpf_list_node list; struct bpf_list_node list2; struct bpf_rb_node tree; struct bpf_refcount refs; };

struct bag { struct bpf_spin_lock lock; struct bpf_list_head head __contains(item, list); };

struct box { __u64 a; struct plain __kptr *own; struct task_struct __kptr_untrusted *seen; };

struct held { __u64 count; struct box __kptr *box; struct bag __kptr *bag; struct plain __kptr *own; struct task_struct __kptr *task; struct task_struct __kptr_untrusted *seen; };
struct { __uint(type, 2); __uint(max_entries, 2); __type(key, __u32); __type(value, struct held); } held SEC(".maps");
struct { __uint(type, 2); __uint(max_entries, 2); __type(key, __u32); __type(value, struct plain); } numbers SEC(".maps");

struct elem { __u64 count; struct bpf_timer timer; __u64 last; };
struct inner { __uint(type, 2); __uint(max_entries, 4); __type(key, __u32); __type(value, struct elem); } timers SEC(".maps"), timers2 SEC(".maps");
struct {
	__uint(type, 12);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = { .values = { &timers, &timers2 } };

private(A) struct bpf_spin_lock lock;
private(A) struct bpf_list_head head __contains(item, list);
private(A) struct bpf_rb_root root __contains(item, tree);

char LICENSE[] SEC("license") = "GPL";

static void *element(void *map, __u32 key)
{
	return bpf_map_lookup_elem(map, &key);
}

/* expect: EACCES kptr access cannot have variable offset */
SEC("?tp_btf/sys_enter")
int load_somewhere(__u64 *ctx)
{
	struct held *v = element(&held, 0);
	__u64 at = ctx[1] & 8;

	if (!v)
		return 0;
	barrier_var(at);
	return *(__u64 *)((void *)v + 24 + at) != 0;
}

/* expect: EACCES BPF_ST imm must be 0 when storing to kptr at off=40 */
SEC("?tp_btf/sys_enter")
int store_constant(__u64 *ctx)
{
	struct held *v = element(&held, 0);

	if (v)
		asm volatile("*(u64 *)(%0 + 40) = 5" :: "r"(v) : "memory");
	return 0;
}

SEC("?tp_btf/sys_enter")
int store_zero(__u64 *ctx)
{
	struct held *v = element(&held, 0);

	if (v)
		asm volatile("*(u64 *)(%0 + 40) = 0" :: "r"(v) : "memory");
	return 0;
}

/* expect: EACCES kptr in map can only be accessed using BPF_MEM instruction mode */
SEC("?tp_btf/sys_enter")
int atomic_add(__u64 *ctx)
{
	struct held *v = element(&held, 0);

	if (v)
		asm volatile("lock *(u64 *)(%0 + 40) += %1" :: "r"(v), "r"(1ULL) : "memory");
	return 0;
}

/* expect: EINVAL R1 doesn't have constant offset. kptr has to be at the constant offset */
SEC("?tp_btf/sys_enter")
int xchg_somewhere(__u64 *ctx)
{
	struct held *v = element(&held, 0);
	__u64 at = ctx[1] & 8;

	if (!v)
		return 0;
	barrier_var(at);
	bpf_kptr_xchg((void *)v + 24 + at, NULL);
	return 0;
}

/* expect: EINVAL R1 has no valid kptr */
SEC("?tp_btf/sys_enter")
int xchg_number(__u64 *ctx)
{
	struct plain *v = element(&numbers, 0);

	if (v)
		bpf_kptr_xchg(&v->a, NULL);
	return 0;
}

/* expect: EINVAL map 'numbers' has no valid bpf_timer */
SEC("?tp_btf/sys_enter")
int timer_of_numbers(__u64 *ctx)
{
	struct plain *v = element(&numbers, 0);

	if (v)
		bpf_timer_cancel((void *)v);
	return 0;
}

static void *gives_value(void *map, __u32 *key, struct elem *value)
{
	return value;
}

/* expect: EINVAL At async callback return the register R0 is not a known value (map_value) */
SEC("?tp_btf/sys_enter")
int callback_of_pointer(__u64 *ctx)
{
	struct elem *v = element(&timers, 0);

	if (v)
		bpf_timer_set_callback(&v->timer, gives_value);
	return 0;
}

__u64 boxes[4];

/* a box with an object in it goes into the map; the one from there is opened, and its object looked at */
SEC("?tp_btf/sys_enter")
int box(__u64 *ctx)
{
	struct held *v = element(&held, 0);
	struct box *box, *before;
	struct plain *own;

	if (!v)
		return 0;
	box = bpf_obj_new(struct box);
	if (!box)
		return 0;
	own = bpf_obj_new(struct plain);
	if (!own) {
		bpf_obj_drop(box);
		return 0;
	}
	own->a = ctx[1];
	own = bpf_kptr_xchg(&box->own, own);
	if (own) {
		boxes[0]++;
		bpf_obj_drop(own);
	}
	before = bpf_kptr_xchg(&v->box, box);
	if (!before)
		return 0;
	own = bpf_kptr_xchg(&before->own, NULL);
	if (own) {
		boxes[1] = own->a;
		if (ctx[1] & 1)
			own = bpf_kptr_xchg(&before->own, own);
		if (own)
			bpf_obj_drop(own);
	}
	bpf_obj_drop(before);
	return 0;
}

/* expect: EACCES R1 type=rcu_ptr_ expected=map_value, ptr_ */
SEC("?tp_btf/sys_enter")
int box_borrowed(__u64 *ctx)
{
	struct held *v = element(&held, 0);
	struct plain *own;
	struct box *box;

	if (!v)
		return 0;
	box = v->box;
	if (!box)
		return 0;
	own = bpf_kptr_xchg(&box->own, NULL);
	if (own)
		bpf_obj_drop(own);
	return 0;
}

/* expect: EACCES direct access to kptr is disallowed */
SEC("?tp_btf/sys_enter")
int box_read(__u64 *ctx)
{
	struct box *box = bpf_obj_new(struct box);

	if (!box)
		return 0;
	boxes[2] = box->own != NULL;
	bpf_obj_drop(box);
	return 0;
}

/* expect: EACCES off=0 doesn't point to kptr */
SEC("?tp_btf/sys_enter")
int box_wrong_place(__u64 *ctx)
{
	struct box *box = bpf_obj_new(struct box);

	if (!box)
		return 0;
	bpf_kptr_xchg(&box->a, NULL);
	bpf_obj_drop(box);
	return 0;
}

/* expect: EACCES off=16 kptr isn't referenced kptr */
SEC("?tp_btf/sys_enter")
int box_untrusted(__u64 *ctx)
{
	struct box *box = bpf_obj_new(struct box);

	if (!box)
		return 0;
	bpf_kptr_xchg(&box->seen, NULL);
	bpf_obj_drop(box);
	return 0;
}

/* expect: EACCES invalid kptr access, R2 type=ptr_box expected=ptr_plain */
SEC("?tp_btf/sys_enter")
int box_in_itself(__u64 *ctx)
{
	struct box *box = bpf_obj_new(struct box);

	if (!box)
		return 0;
	bpf_kptr_xchg(&box->own, box);
	return 0;
}

/* expect: EACCES R1 type=scalar expected=map_value, ptr_ */
SEC("?tp_btf/sys_enter")
int box_dropped(__u64 *ctx)
{
	struct box *box = bpf_obj_new(struct box);

	if (!box)
		return 0;
	bpf_obj_drop(box);
	bpf_kptr_xchg(&box->own, NULL);
	return 0;
}

/* expect: EINVAL R1 has no valid kptr */
SEC("?tp_btf/sys_enter")
int no_box(__u64 *ctx)
{
	struct plain *own = bpf_obj_new(struct plain);

	if (!own)
		return 0;
	bpf_kptr_xchg(&own->a, NULL);
	bpf_obj_drop(own);
	return 0;
}

/* expect: EINVAL R1 is not a scalar */
SEC("?tp_btf/sys_enter")
int new_of_pointer(__u64 *ctx)
{
	void *made = bpf_obj_new_impl((__u64)ctx, NULL);

	if (made)
		bpf_obj_drop(made);
	return 0;
}

/* expect: EINVAL R1 must be a known constant */
SEC("?tp_btf/sys_enter")
int new_of_anything(__u64 *ctx)
{
	void *made = bpf_obj_new_impl(ctx[1], NULL);

	if (made)
		bpf_obj_drop(made);
	return 0;
}

/* expect: EINVAL local type ID argument must be in range [0, U32_MAX] */
SEC("?tp_btf/sys_enter")
int new_of_much(__u64 *ctx)
{
	void *made = bpf_obj_new_impl(1ULL << 32, NULL);

	if (made)
		bpf_obj_drop(made);
	return 0;
}

/* expect: EINVAL bpf_obj_new/bpf_percpu_obj_new type ID argument must be of a struct */
SEC("?tp_btf/sys_enter")
int new_of_number(__u64 *ctx)
{
	void *made = bpf_obj_new(__u64);

	if (made)
		bpf_obj_drop(made);
	return 0;
}

__u64 bigs[2];

SEC("?tp_btf/sys_enter")
int new_of_big(__u64 *ctx)
{
	struct big *made = bpf_obj_new(struct big);
	struct page *page = bpf_obj_new(struct page);

	if (made)
		bpf_obj_drop(made);
	bigs[0] = made != NULL;
	if (page) {
		page->a[510]++;
		bigs[1] = page->a[510];
		bpf_obj_drop(page);
	}
	return 0;
}

/* expect: EINVAL one call is made with objects of different types */
/* differs: Linux takes the type that it saw last for both, and makes one of them too short */
SEC("?tp_btf/sys_enter")
int new_of_either(__u64 *ctx)
{
	__u64 id = type_id(struct item);
	void *made;

	if (ctx[1] & 1)
		id = type_id(struct plain);
	made = bpf_obj_new_impl(id, NULL);
	if (made)
		bpf_obj_drop(made);
	return 0;
}

/* expect: EINVAL arg#0 expected pointer to allocated object */
SEC("?tp_btf/sys_enter")
int drop_task(__u64 *ctx)
{
	bpf_obj_drop(bpf_get_current_task_btf());
	return 0;
}

/* expect: EINVAL release kernel function bpf_task_release expects refcounted PTR_TO_BTF_ID */
SEC("?tp_btf/sys_enter")
int release_current(__u64 *ctx)
{
	bpf_task_release(bpf_get_current_task_btf());
	return 0;
}

/* expect: EINVAL kernel function bpf_task_acquire args#0 expected pointer to STRUCT task_struct but R1 has a pointer to STRUCT pt_regs */
SEC("?tp_btf/sys_enter")
int acquire_registers(__u64 *ctx)
{
	struct task_struct *task = bpf_task_acquire((void *)ctx[0]);

	if (task)
		bpf_task_release(task);
	return 0;
}

/* expect: EINVAL arg#0 is neither owning or non-owning ref */
SEC("?tp_btf/sys_enter")
int share_task(__u64 *ctx)
{
	void *got = bpf_refcount_acquire_impl(bpf_get_current_task_btf(), NULL);

	if (got)
		bpf_obj_drop(got);
	return 0;
}

/* expect: EINVAL R2 must be a known constant */
SEC("?tp_btf/sys_enter")
int cast_to_anything(__u64 *ctx)
{
	return bpf_rdonly_cast(ctx, ctx[1]) != NULL;
}

/* expect: EINVAL arg#0 expected pointer to map value or allocated object */
SEC("?tp_btf/sys_enter")
int head_on_the_stack(__u64 *ctx)
{
	struct bpf_list_head own = {};
	struct item *made = bpf_obj_new(struct item);

	if (made)
		bpf_list_push_front_impl(&own, &made->list, NULL, 0);
	return 0;
}

/* expect: EINVAL bpf_spin_lock at off=0 must be held for bpf_list_head */
SEC("?tp_btf/sys_enter")
int bag_unlocked(__u64 *ctx)
{
	struct bag *bag = bpf_obj_new(struct bag);

	if (bag) {
		bpf_list_pop_front(&bag->head);
		bpf_obj_drop(bag);
	}
	return 0;
}

/* a bag of three items stays in the map; that of the event before is emptied of one, and dropped with the rest */
SEC("?tp_btf/sys_enter")
int bag(__u64 *ctx)
{
	struct held *v = element(&held, 0);
	struct bpf_list_node *node;
	struct bag *bag;
	int i;

	if (!v)
		return 0;
	bag = bpf_obj_new(struct bag);
	if (!bag)
		return 0;
	for (i = 0; i < 3; i++) {
		struct item *item = bpf_obj_new(struct item);

		if (!item)
			break;
		item->key = ctx[1] + i;
		bpf_spin_lock(&bag->lock);
		bpf_list_push_front_impl(&bag->head, &item->list, NULL, 0);
		bpf_spin_unlock(&bag->lock);
	}
	bag = bpf_kptr_xchg(&v->bag, bag);
	if (!bag)
		return 0;
	bpf_spin_lock(&bag->lock);
	node = bpf_list_pop_front(&bag->head);
	bpf_spin_unlock(&bag->lock);
	if (node) {
		struct item *item = (void *)node - __builtin_offsetof(struct item, list);

		boxes[3] = item->key;
		bpf_obj_drop(item);
	}
	bpf_obj_drop(bag);
	return 0;
}

/* expect: EINVAL bpf_spin_lock at off=0 must be held for bpf_list_head */
SEC("?tp_btf/sys_enter")
int bag_of_another_lock(__u64 *ctx)
{
	struct bag *bag = bpf_obj_new(struct bag), *other;

	if (!bag)
		return 0;
	other = bpf_obj_new(struct bag);
	if (other) {
		bpf_spin_lock(&other->lock);
		bpf_list_pop_front(&bag->head);
		bpf_spin_unlock(&other->lock);
		bpf_obj_drop(other);
	}
	bpf_obj_drop(bag);
	return 0;
}

/* expect: EINVAL bpf_spin_unlock of different lock */
SEC("?tp_btf/sys_enter")
int bag_other_unlocked(__u64 *ctx)
{
	struct bag *bag = bpf_obj_new(struct bag), *other;

	if (!bag)
		return 0;
	other = bpf_obj_new(struct bag);
	if (other) {
		bpf_spin_lock(&other->lock);
		bpf_spin_unlock(&bag->lock);
		bpf_obj_drop(other);
	}
	bpf_obj_drop(bag);
	return 0;
}

/* expect: EINVAL function calls are not allowed while holding a lock */
SEC("?tp_btf/sys_enter")
int bag_dropped_locked(__u64 *ctx)
{
	struct bag *bag = bpf_obj_new(struct bag);

	if (!bag)
		return 0;
	bpf_spin_lock(&bag->lock);
	bpf_obj_drop(bag);
	return 0;
}

/* expect: EINVAL local 'kptr' has no valid bpf_spin_lock */
SEC("?tp_btf/sys_enter")
int no_lock(__u64 *ctx)
{
	struct plain *made = bpf_obj_new(struct plain);

	if (!made)
		return 0;
	bpf_spin_lock((void *)made);
	bpf_spin_unlock((void *)made);
	bpf_obj_drop(made);
	return 0;
}

/* expect: EINVAL arg#1 offset=32, but expected bpf_list_node at offset=8 in struct item */
SEC("?tp_btf/sys_enter")
int the_other_node(__u64 *ctx)
{
	struct item *made = bpf_obj_new(struct item);

	if (!made)
		return 0;
	bpf_spin_lock(&lock);
	bpf_list_push_front_impl(&head, &made->list2, NULL, 0);
	bpf_spin_unlock(&lock);
	return 0;
}

/* expect: EACCES variable ptr_ access var_off=(0x0; 0x8) disallowed */
SEC("?tp_btf/sys_enter")
int node_somewhere(__u64 *ctx)
{
	struct item *made = bpf_obj_new(struct item);
	__u64 at = ctx[1] & 8;

	if (!made)
		return 0;
	barrier_var(at);
	bpf_spin_lock(&lock);
	bpf_list_push_front_impl(&head, (void *)made + at, NULL, 0);
	bpf_spin_unlock(&lock);
	return 0;
}

/* expect: EINVAL R1 doesn't have constant offset. bpf_list_head has to be at the constant offset */
SEC("?tp_btf/sys_enter")
int head_somewhere(__u64 *ctx)
{
	struct item *made = bpf_obj_new(struct item);
	__u64 at = ctx[1] & 8;

	if (!made)
		return 0;
	barrier_var(at);
	bpf_spin_lock(&lock);
	bpf_list_push_front_impl((void *)&head + at, &made->list, NULL, 0);
	bpf_spin_unlock(&lock);
	return 0;
}

/* expect: EINVAL arg2 expected pointer to func */
SEC("?tp_btf/sys_enter")
int order_by_number(__u64 *ctx)
{
	struct item *made = bpf_obj_new(struct item);

	if (!made)
		return 0;
	bpf_spin_lock(&lock);
	bpf_rbtree_add_impl(&root, &made->tree, (void *)ctx[1], NULL, 0);
	bpf_spin_unlock(&lock);
	return 0;
}

static int tick(void *map, __u32 *key, struct elem *value)
{
	value->count += 1 + *key;
	if (value->count < 9)
		bpf_timer_start(&value->timer, 1000000, 0);
	return 0;
}

/* sys_enter(regs, id): the timer of element id & 3 of one inner map or the other */
SEC("?tp_btf/sys_enter")
int timer_in_inner(__u64 *ctx)
{
	void *map = element(&outer, ctx[1] >> 2 & 1);
	struct elem *value;

	if (!map)
		return 0;
	value = element(map, ctx[1] & 3);
	if (!value)
		return 0;
	bpf_timer_init(&value->timer, map, 1);
	bpf_timer_set_callback(&value->timer, tick);
	value->last = bpf_timer_start(&value->timer, 1000000, 0);
	return 0;
}

/* expect: EINVAL timer pointer in R1 map_uid=1 doesn't match map pointer in R2 map_uid=2 */
SEC("?tp_btf/sys_enter")
int timer_of_another_inner(__u64 *ctx)
{
	void *map = element(&outer, 0), *other = element(&outer, 1);
	struct elem *value;

	if (!map || !other)
		return 0;
	value = element(map, 0);
	if (value)
		bpf_timer_init(&value->timer, other, 1);
	return 0;
}

/* expect: EACCES Possibly NULL pointer passed to helper arg2 */
SEC("tp_btf/sched_switch")
int unchecked_task(__u64 *ctx)
{
	struct task_struct *next = (struct task_struct *)ctx[2];
	__u32 key = 0;
	struct held *v = bpf_map_lookup_elem(&held, &key);

	if (!v)
		return 0;
	next = bpf_kptr_xchg(&v->task, bpf_task_acquire(next));
	if (next)
		bpf_task_release(next);
	return 0;
}

/* expect: EFAULT verifier bug: invalid PTR_TO_BTF_ID register for type match */
SEC("tp_btf/sched_switch")
int unchecked_object(__u64 *ctx)
{
	__u32 key = 0;
	struct held *v = bpf_map_lookup_elem(&held, &key);
	struct plain *own;

	if (!v)
		return 0;
	own = bpf_kptr_xchg(&v->own, bpf_obj_new(struct plain));
	if (own)
		bpf_obj_drop(own);
	return 0;
}
