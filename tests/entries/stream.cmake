weir_test(unit stream SOURCES unit/stream/test_plan.c unit/stream/test_catalog.c NEEDS stream memfs TIMEOUT 300)
weir_test(model catalog SOURCES model/test_catalog.c NEEDS stream memfs)
