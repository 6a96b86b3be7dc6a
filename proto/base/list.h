/* An intrusive doubly linked list. A node is in at most one list; a zeroed node is in none.
 * One thread at a time. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct weir_list {
    struct weir_list *next, *prev;
};

#define WEIR_CONTAINER(pointer, type, member) \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

static inline void
weir_list_init(struct weir_list *head)
{
    head->next = head->prev = head;
}

static inline bool
weir_list_is_empty(const struct weir_list *head)
{
    return head->next == head;
}

static inline bool
weir_list_is_linked(const struct weir_list *node)
{
    return node->next != NULL;
}

static inline void
weir_list_push_back(struct weir_list *head, struct weir_list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void
weir_list_push_front(struct weir_list *head, struct weir_list *node)
{
    weir_list_push_back(head->next, node);
}

/* Takes the node out of its list; one that is in none is left alone. */
static inline void
weir_list_remove(struct weir_list *node)
{
    if (!node->next)
        return;
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = node->prev = NULL;
}

/* The first node, taken out, or NULL. */
static inline struct weir_list *
weir_list_pop_front(struct weir_list *head)
{
    if (weir_list_is_empty(head))
        return NULL;
    struct weir_list *node = head->next;
    weir_list_remove(node);
    return node;
}

#define WEIR_LIST_FOR_EACH(node, head) \
    for (struct weir_list *node = (head)->next; node != (head); node = node->next)
/* The body may remove `node`. */
#define WEIR_LIST_FOR_EACH_SAFE(node, head)                                                \
    for (struct weir_list *node = (head)->next, *node##_next = node->next; node != (head); \
         node = node##_next, node##_next = node->next)
