"""Recipes of include/trace/events/kmem.h: addresses of memory stay what they were, so nothing can be read through them."""

from __future__ import annotations

from .recipe import Missing, Raw, Recipe, Scalar

_CALL_SITE = Scalar("unsigned long", "call_site")
_CACHE = Missing("kmem_cache", "the cache is not recorded")
_PAGE = Missing("page", "the page frame number is recorded, the page is not")
_GFP = Scalar("gfp_t", "gfp_flags")
_NODE = Scalar("int", "node")

RECIPES = {
    "kmalloc": Recipe((_CALL_SITE, Raw("ptr"), Scalar("size_t", "bytes_req"), Scalar("size_t", "bytes_alloc"), _GFP, _NODE)),
    "kfree": Recipe((_CALL_SITE, Raw("ptr"))),
    "kmem_cache_alloc": Recipe((_CALL_SITE, Raw("ptr"), _CACHE, _GFP, _NODE)),
    "kmem_cache_free": Recipe((_CALL_SITE, Raw("ptr"), _CACHE)),
    "mm_page_alloc": Recipe((_PAGE, Scalar("unsigned int", "order"), _GFP, Scalar("int", "migratetype"))),
    "mm_page_alloc_zone_locked": Recipe(
        (_PAGE, Scalar("unsigned int", "order"), Scalar("int", "migratetype"), Scalar("int", "percpu_refill"))
    ),
    "mm_page_free": Recipe((_PAGE, Scalar("unsigned int", "order"))),
    "mm_page_free_batched": Recipe((_PAGE,)),
    "mm_page_pcpu_drain": Recipe((_PAGE, Scalar("unsigned int", "order"), Scalar("int", "migratetype"))),
}
