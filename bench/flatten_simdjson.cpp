// The peer of bench/flatten.c: simdjson's DOM parse, behind three C calls.
#include <cstddef>
#include <cstdint>
#include <simdjson.h>

extern "C" void *weir_bench_simdjson_new()
{
    return new simdjson::dom::parser;
}

extern "C" void weir_bench_simdjson_free(void *parser)
{
    delete static_cast<simdjson::dom::parser *>(parser);
}

// `capacity` bytes may be read from `json` on.
extern "C" size_t weir_bench_simdjson_parse(void *parser, const uint8_t *json, size_t len,
                                            size_t capacity)
{
    bool padded = capacity >= len + simdjson::SIMDJSON_PADDING;
    auto result = static_cast<simdjson::dom::parser *>(parser)->parse(json, len, !padded);
    return result.error() == simdjson::SUCCESS;
}
