weir_test(unit json_reader SOURCES unit/json/test_reader.c NEEDS json)
weir_test(unit json_writer SOURCES unit/json/test_writer.c NEEDS json)
weir_test(unit json_scan SOURCES unit/json/test_scan.c NEEDS json)
weir_fuzz(json SOURCES fuzz/fuzz_json.c NEEDS json)
