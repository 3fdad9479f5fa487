"""KNOWN: what functions and macros give, by the members that they read; a person wrote these down.

Each row is a call and the expression that it is worth. Names that begin with $ are operations that `solve` knows to undo:

    $swap16(x) $swap32(x) $swap64(x)     another byte order
    $id_pfn(x) $id_hash(x)               a number that stands for the object that x points to, and for no other
    $devt(major, minor)                  a dev_t
    $errno(x)                            the errno of a blk_status_t
    $none_if(x, v)                       x, but v where there is no object
    $unless(x, v)                        x, or v for another reason
    $event(...)                          something of the event itself: time, cpu, the running task
    $text(...)                           a text made from what follows
"""

from __future__ import annotations

from functools import cache

from .cexpr import Call, Expr, Name, parse
from .tokens import tokenize

_ROWS = """
ntohs(x) = $swap16(x)
htons(x) = $swap16(x)
be16_to_cpu(x) = $swap16(x)
cpu_to_be16(x) = $swap16(x)
__be16_to_cpu(x) = $swap16(x)
be16_to_cpup(x) = $swap16(*x)
ntohl(x) = $swap32(x)
htonl(x) = $swap32(x)
be32_to_cpu(x) = $swap32(x)
cpu_to_be32(x) = $swap32(x)
__be32_to_cpu(x) = $swap32(x)
be32_to_cpup(x) = $swap32(*x)
be64_to_cpu(x) = $swap64(x)
cpu_to_be64(x) = $swap64(x)
__be64_to_cpu(x) = $swap64(x)
le16_to_cpu(x) = x
le32_to_cpu(x) = x
le64_to_cpu(x) = x
__le16_to_cpu(x) = x
__le32_to_cpu(x) = x
__le64_to_cpu(x) = x
cpu_to_le16(x) = x
cpu_to_le32(x) = x
cpu_to_le64(x) = x
le16_to_cpup(x) = *x
le32_to_cpup(x) = *x
READ_ONCE(x) = x
WRITE_ONCE(x) = x
data_race(x) = x
READ_ONCE_NOCHECK(x) = x
smp_load_acquire(x) = *x
rcu_dereference(x) = x
rcu_dereference_raw(x) = x
rcu_dereference_check(x, c) = x
rcu_dereference_protected(x, c) = x
rcu_dereference_bh(x) = x
rcu_dereference_sched(x) = x
rcu_access_pointer(x) = x
rtnl_dereference(x) = x
unlikely(x) = x
likely(x) = x
atomic_read(x) = x->counter
atomic64_read(x) = x->counter
atomic_long_read(x) = x->counter
local_read(x) = x->a.counter
local64_read(x) = x->a.a.counter
refcount_read(x) = x->refs.counter
kref_read(x) = x->refcount.refs.counter
percpu_counter_sum(x) = x->count
percpu_counter_read_positive(x) = x->count
page_ref_count(x) = x->_refcount.counter
page_count(x) = x->_refcount.counter
folio_ref_count(x) = x->_refcount.counter
page_mapcount(x) = x->_mapcount.counter + 1
ktime_to_ns(x) = x
ktime_to_us(x) = x / 1000
ktime_to_ms(x) = x / 1000000
ns_to_ktime(x) = x
ktime_divns(x, d) = x / d
ktime_us_delta(a, b) = (a - b) / 1000
ktime_sub(a, b) = a - b
ktime_add(a, b) = a + b
hrtimer_get_expires(x) = x->node.expires
hrtimer_get_softexpires(x) = x->_softexpires
hrtimer_get_expires_tv64(x) = x->node.expires
hrtimer_get_softexpires_tv64(x) = x->_softexpires
ktime_get() = $event(time)
ktime_get_ns() = $event(time)
ktime_get_boottime() = $event(time)
ktime_get_boottime_ns() = $event(time)
ktime_get_real_ns() = $event(time)
ktime_get_real() = $event(time)
local_clock() = $event(time)
sched_clock() = $event(time)
cpu_clock(c) = $event(time)
raw_smp_processor_id() = $event(cpu)
smp_processor_id() = $event(cpu)
get_current() = current
in_task() = $event(context)
in_interrupt() = $event(context)
in_hardirq() = $event(context)
irqs_disabled() = $event(context)
preempt_count() = $event(context)
get_cycles() = $event(time)
rdtsc() = $event(time)
blk_rq_pos(rq) = rq->__sector
blk_rq_bytes(rq) = rq->__data_len
blk_rq_sectors(rq) = rq->__data_len >> 9
blk_rq_trace_sector(rq) = $trace_sector(rq->__sector)
blk_rq_trace_nr_sectors(rq) = $unless(rq->__data_len >> 9, 0)
req_get_ioprio(rq) = rq->ioprio
disk_devt(disk) = $devt(disk->major, disk->first_minor)
bio_dev(bio) = bio->bi_bdev->bd_dev
bio_sectors(bio) = bio->bi_iter.bi_size >> 9
bio_op(bio) = bio->bi_opf & 255
req_op(rq) = rq->cmd_flags & 255
blk_status_to_errno(x) = $errno(x)
MKDEV(major, minor) = $devt(major, minor)
MAJOR(x) = x >> 20
MINOR(x) = x & 0xfffff
new_encode_dev(x) = $encode_dev(x)
old_encode_dev(x) = $encode_dev(x)
page_to_pfn(page) = $none_if($id_pfn(page), -1)
__page_to_pfn(page) = $none_if($id_pfn(page), -1)
folio_pfn(folio) = $id_pfn(folio)
page_to_phys(page) = $id_pfn(page) << 12
virt_to_phys(x) = $id_hash(x)
mm_ptr_to_hash(mm, h) = $id_hash(mm)
mm_ptr_to_hash(mm) = $id_hash(mm)
ptr_to_hashval(p) = $id_hash(p)
i_size_read(inode) = inode->i_size
d_inode(d) = d->d_inode
file_inode(file) = file->f_inode
d_backing_inode(d) = d->d_inode
file_dentry(file) = file->f_path.dentry
i_uid_read(inode) = inode->i_uid.val
i_gid_read(inode) = inode->i_gid.val
from_kuid(ns, x) = x.val
from_kgid(ns, x) = x.val
from_kuid_munged(ns, x) = x.val
from_kgid_munged(ns, x) = x.val
from_kprojid(ns, x) = x.val
__kuid_val(x) = x.val
__kgid_val(x) = x.val
from_vfsuid(a, b, x) = x.val
inode_peek_iversion(inode) = inode->i_version.counter >> 1
inode_peek_iversion_raw(inode) = inode->i_version.counter
inode_get_ctime_sec(inode) = inode->i_ctime_sec
inode_get_mtime_sec(inode) = inode->i_mtime_sec
inode_get_atime_sec(inode) = inode->i_atime_sec
zone_to_nid(zone) = zone->node
page_mapping(page) = page->mapping
folio_mapping(folio) = folio->mapping
page_folio(page) = page
folio_page(folio, n) = folio
compound_head(page) = page
page_index(page) = page->index
folio_index(folio) = folio->index
folio_nr_pages(folio) = folio->_folio_nr_pages
folio_pos(folio) = folio->index << 12
page_offset(page) = page->index << 12
bdi_dev_name(bdi) = bdi->dev_name
inode_to_bdi(inode) = inode->i_sb->s_bdi
inode_to_wb(inode) = inode->i_wb
dev_name(dev) = dev->kobj.name
kobject_name(kobj) = kobj->name
pci_name(pdev) = pdev->dev.kobj.name
dev_driver_string(dev) = dev->driver->name
netdev_name(dev) = dev->name
wiphy_name(wiphy) = wiphy->dev.kobj.name
wiphy_dev(wiphy) = wiphy->dev.parent
ibdev_to_node(dev) = dev->node
hlist_unhashed(x) = !x->pprev
list_empty(x) = $empty(x->next)
nla_len(x) = x->nla_len - 4
nlmsg_len(x) = x->nlmsg_len - 16
inet_sk(sk) = (struct inet_sock *)sk
tcp_sk(sk) = (struct tcp_sock *)sk
udp_sk(sk) = (struct udp_sock *)sk
inet_csk(sk) = (struct inet_connection_sock *)sk
inet_rsk(req) = (struct inet_request_sock *)req
tcp_rsk(req) = (struct tcp_request_sock *)req
inet6_sk(sk) = ((struct inet_sock *)sk)->pinet6
unix_sk(sk) = (struct unix_sock *)sk
mptcp_sk(sk) = (struct mptcp_sock *)sk
mptcp_subflow_ctx(sk) = ((struct inet_connection_sock *)sk)->icsk_ulp_data
tcp_snd_cwnd(tp) = tp->snd_cwnd
tcp_packets_in_flight(tp) = $known_sum(tp->packets_out)
sock_gen_cookie(sk) = sk->__sk_common.skc_cookie.counter
sock_net(sk) = sk->__sk_common.skc_net.net
dev_net(dev) = dev->nd_net.net
read_pnet(x) = x->net
sk_rmem_alloc_get(sk) = sk->sk_backlog.rmem_alloc.counter
sk_wmem_alloc_get(sk) = sk->sk_wmem_alloc.refs.counter - 1
sk_get_rmem0(sk, p) = p->sysctl_rmem[0]
sk_get_wmem0(sk, p) = p->sysctl_wmem[0]
sk_fullsock(sk) = $event(state)
skb_vlan_tag_present(skb) = !!skb->vlan_all
skb_vlan_tag_get(skb) = skb->vlan_tci
skb_mac_header_was_set(skb) = $event(layout)
skb_transport_header_was_set(skb) = $event(layout)
skb_get_nlmsg(skb) = skb->data
skb_headlen(skb) = skb->len - skb->data_len
skb_get_queue_mapping(skb) = skb->queue_mapping
skb_shinfo(skb) = (struct skb_shared_info *)$layout(skb)
dev_name_or_null(dev) = dev->name
task_pid_nr(t) = t->pid
task_tgid_nr(t) = t->tgid
task_pid_vnr(t) = t->pid
task_tgid_vnr(t) = t->tgid
task_cpu(t) = t->thread_info.cpu
task_pid(t) = t->thread_pid
task_uid(t) = t->cred->uid
pid_nr(pid) = $none_if(pid->numbers[0].nr, 0)
pid_vnr(pid) = $none_if(pid->numbers[0].nr, 0)
task_numa_group_id(t) = t->numa_group->gid
task_nice(t) = t->static_prio - 120
cgroup_id(cgrp) = cgrp->kn->id
cgroup_ino(cgrp) = cgrp->kn->id & 0xffffffff
kernfs_ino(kn) = kn->id & 0xffffffff
kernfs_id(kn) = kn->id
css_id(css) = css->id
current_uid() = current->cred->uid
current_euid() = current->cred->euid
PTR_ERR(x) = (long)x
ERR_PTR(x) = (void *)x
PTR_ERR_OR_ZERO(x) = (long)x
IS_ERR(x) = $event(error)
IS_ERR_OR_NULL(x) = !x
min(a, b) = $smaller(a)
max(a, b) = $larger(a)
min_t(t, a, b) = $smaller(a)
max_t(t, a, b) = $larger(a)
DIV_ROUND_UP(x, d) = $rounded(x)
round_down(x, d) = $rounded(x)
round_up(x, d) = $rounded(x)
ALIGN(x, d) = $rounded(x)
lower_32_bits(x) = x & 0xffffffff
upper_32_bits(x) = x >> 32
trace_reclaim_flags(file) = (file ? 2 : 1) | 4
trace_shrink_flags(file) = (file ? 2 : 1) | 4
kvm_rip_read(vcpu) = vcpu->arch.regs[16]
cpumask_bits(x) = x->bits
cpumask_pr_args(x) = x->bits
nodes_addr(x) = x.bits
usb_endpoint_num(d) = d->bEndpointAddress & 15
usb_endpoint_type(d) = d->bmAttributes & 3
usb_endpoint_maxp(d) = d->wMaxPacketSize & 2047
usb_endpoint_dir_in(d) = d->bEndpointAddress >> 7
dma_fence_get_driver_name(f) = $method(f)
ieee80211_hw_to_local(hw) = hw->priv
netdev_priv(d) = (char *)d + 1
timespec64_to_ns(t) = $sum(t)
inode_is_open_for_write(inode) = $positive(inode->i_writecount.counter)
rpc_qname(q) = q->name
rpc_peeraddr2str(c, f) = c->cl_xprt->address_strings[f]
sdev_id(s) = s->id
vma_pages(v) = (v->vm_end - v->vm_start) >> 12
xfs_inode_fsize(ip) = ip->i_vnode.i_size
BTRFS_I(inode) = container_of(inode, struct btrfs_inode, vfs_inode)
NFS_I(inode) = container_of(inode, struct nfs_inode, vfs_inode)
EXT4_I(inode) = container_of(inode, struct ext4_inode_info, vfs_inode)
test_bit(n, a) = !!(*a & (1 << n))
folio_test_uptodate(folio) = !!(folio->flags & 8)
blk_mq_rq_from_pdu(p) = $layout(p)
VFS_I(ip) = ip->i_vnode
"""


@cache
def _table() -> dict[str, dict[int, tuple[tuple[str, ...], Expr]]]:
    table: dict[str, dict[int, tuple[tuple[str, ...], Expr]]] = {}
    for row in _ROWS.strip().splitlines():
        left, _, right = row.partition(" = ")
        call = parse(tokenize(left))
        if isinstance(call, Call) and isinstance(call.func, Name):
            params = tuple(arg.name if isinstance(arg, Name) else "" for arg in call.args)
            table.setdefault(call.func.name, {})[len(params)] = (params, parse(tokenize(right)))
    return table


def known(name: str, count: int) -> tuple[tuple[str, ...], Expr] | None:
    """(parameters, what it is worth) of a function called with so many arguments."""
    return _table().get(name, {}).get(count)
