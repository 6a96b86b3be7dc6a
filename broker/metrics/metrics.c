#include "metrics/metrics.h"

const struct weir_metric_about weir_metric_about[WEIR_METRIC_COUNT] = {
#define X(id, kind, name, unit, help, action) \
    [WEIR_METRIC_##id] = {WEIR_##kind, name, unit, help, action},
    WEIR_METRICS(X)
#undef X
};

int64_t
weir_metric_sum(struct weir_metrics *const *all, size_t count, enum weir_metric id)
{
    int64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += atomic_load_explicit(&all[i]->value[id], memory_order_relaxed);
    return sum;
}
