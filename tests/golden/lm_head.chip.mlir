!global256 = !chip.global<bytes = 256>
!local128 = !chip.local<bytes = 128>
!local64 = !chip.local<bytes = 64>
!local1024 = !chip.local<bytes = 1024>
!local256 = !chip.local<bytes = 256>
#i32_view = #chip.view<dtype = i32>
#bf16_view = #chip.view<dtype = bf16>
#f32_view = #chip.view<dtype = f32>
"builtin.module"() ({
  "func.func"() <{sym_name = "lm_head", function_type = () -> ()}> ({
    %0 = "chip.global"() <{space = "input", index = 0 : i64, tensor = tensor<1x128xbf16>, address = 4295036928 : i64}> : () -> !global256
    %1 = "chip.global"() <{space = "output", index = 0 : i64, tensor = tensor<1x1xi32>, address = 4295041024 : i64}> : () -> !chip.global<bytes = 4>
    %2 = "chip.local"() <{offset = 262016 : i64}> : () -> !local128 loc("lm_head")
    %3 = "chip.local"() <{offset = 0 : i64}> : () -> !local64 loc("lm_head")
    %4 = "chip.local"() <{offset = 16384 : i64}> : () -> !local128 loc("lm_head")
    %5 = "chip.local"() <{offset = 0 : i64}> : () -> !local128 loc("lm_head")
    %6 = "chip.global"() <{space = "weight", source = #weights.packed<names = ["/lm_head.weight"], row = 0, column = 0, tile = #weights.tile<rows = 256, columns = 128, stored = bf16, lanes = 64, section = 64>>, address = 4294967296 : i64}> : () -> !chip.global<bytes = 65536> loc("lm_head")
    %7 = "chip.local"() <{offset = 260992 : i64}> : () -> !local1024 loc("lm_head")
    %8 = "chip.local"() <{offset = 128 : i64}> : () -> !local256 loc("lm_head")
    %9 = "chip.local"() <{offset = 16384 : i64}> : () -> !local64 loc("lm_head")
    %10 = "chip.local"() <{offset = 64 : i64}> : () -> !local256 loc("lm_head")
    %11 = "chip.local"() <{offset = 0 : i64}> : () -> !local64 loc("lm_head")
    %12 = "chip.local"() <{offset = 320 : i64}> : () -> !local256 loc("lm_head")
    %13 = "chip.local"() <{offset = 0 : i64}> : () -> !local64 loc("lm_head")
    %14 = "chip.local"() <{offset = 64 : i64}> : () -> !local64 loc("lm_head")
    %15 = "chip.global"() <{space = "weight", source = #weights.iota<count = 4, step = -64.0>, address = 4295032832 : i64}> : () -> !chip.global<bytes = 16> loc("lm_head")
    %16 = "chip.local"() <{offset = 260928 : i64}> : () -> !local64 loc("lm_head")
    %17 = "chip.local"() <{offset = 0 : i64}> : () -> !local64 loc("lm_head")
    %18 = "chip.local"() <{offset = 64 : i64}> : () -> !local64 loc("lm_head")
    %19 = "chip.local"() <{offset = 16384 : i64}> : () -> !local64 loc("lm_head")
    %20 = "chip.local"() <{offset = 260864 : i64}> : () -> !local64 loc("lm_head")
    %21 = "chip.global"() <{space = "weight", source = #weights.iota<count = 64, step = 1.0>, address = 4295033088 : i64}> : () -> !global256 loc("lm_head")
    %22 = "chip.local"() <{offset = 0 : i64}> : () -> !local256 loc("lm_head")
    %23 = "chip.local"() <{offset = 256 : i64}> : () -> !local64 loc("lm_head")
    %24 = "chip.local"() <{offset = 0 : i64}> : () -> !local64 loc("lm_head")
    %25 = "chip.local"() <{offset = 16384 : i64}> : () -> !local64 loc("lm_head")
    %26 = "chip.local"() <{offset = 0 : i64}> : () -> !local64 loc("lm_head")
    "chip.dma"(%2, %0) <{kind = "copy", shape = array<i64: 1, 2, 1, 64>, res = #chip.view<dtype = bf16, strides = [0, 64, 0, 1]>, opd0 = #chip.view<dtype = bf16, strides = [0, 64, 0, 1]>}> {chip.id = 1 : i64} : (!local128, !global256) -> () loc("lm_head")
    "chip.dma_matrix"(%7, %6) <{rows = 1 : i64, columns = 16384 : i64, block = 256 : i64, row_stride = 16384 : i64, n_stride = 256 : i64, c_stride = 256 : i64, res = #i32_view, opd0 = #i32_view}> {chip.id = 2 : i64} : (!local1024, !chip.global<bytes = 65536>) -> () loc("lm_head")
    "chip.dma"(%16, %15) <{kind = "broadcast", shape = array<i64: 1, 64, 1, 4>, res = #chip.view<dtype = f32, strides = [0, 0, 0, 1]>, opd0 = #chip.view<dtype = f32, strides = [0, 0, 0, 1]>}> {chip.id = 3 : i64} : (!local64, !chip.global<bytes = 16>) -> () loc("lm_head")
    "chip.dma_matrix"(%20, %21) <{rows = 1 : i64, columns = 64 : i64, block = 1 : i64, row_stride = 64 : i64, n_stride = 16 : i64, c_stride = 1 : i64, res = #i32_view, opd0 = #i32_view}> {chip.id = 4 : i64} : (!local64, !global256) -> () loc("lm_head")
    "chip.lanes"(%3, %2) <{kind = "cw_ts", shape = array<i64: 1, 64, 1, 2>, res = #bf16_view, opd0 = #bf16_view}> {chip.id = 1 : i64, chip.wait = 1 : i64} : (!local64, !local128) -> () loc("lm_head")
    "chip.ar"(%4, %3) <{kind = "cast", shape = array<i64: 1, 64, 1, 2>, res = #chip.view<dtype = f32, strides = [0, 0, 0, 16]>, opd0 = #chip.view<dtype = bf16, strides = [0, 0, 0, 1]>, operandSegmentSizes = array<i32: 1, 1, 0>}> {chip.id = 2 : i64} : (!local128, !local64) -> () loc("lm_head")
    "chip.ar"(%5, %4) <{kind = "cast", shape = array<i64: 1, 64, 1, 2>, res = #chip.view<dtype = bf16, strides = [0, 0, 0, 32]>, opd0 = #chip.view<dtype = f32, strides = [0, 0, 0, 16]>, operandSegmentSizes = array<i32: 1, 1, 0>}> {chip.id = 3 : i64} : (!local128, !local128) -> () loc("lm_head")
    "chip.matmul"(%8, %7, %5) <{kind = "nn", m = 256 : i64, k = 128 : i64, n = 1 : i64, res = #f32_view, opd0 = #bf16_view, opd1 = #bf16_view}> {chip.id = 4 : i64, chip.wait = 2 : i64} : (!local256, !local1024, !local128) -> () loc("lm_head")
    "chip.ar"(%9, %8) <{kind = "copy", shape = array<i64: 1, 64, 1, 4>, res = #chip.view<dtype = f32, strides = [0, 0, 0, 1]>, opd0 = #chip.view<dtype = f32, strides = [0, 0, 0, 16]>, operandSegmentSizes = array<i32: 1, 1, 0>}> {chip.id = 5 : i64} : (!local64, !local256) -> () loc("lm_head")
    "chip.pool"(%11, %9) <{kind = "max", shape = array<i64: 1, 64, 1, 4>, kernel = array<i64: 1, 4>, res = #f32_view, opd0 = #f32_view}> {chip.id = 6 : i64} : (!local64, !local64) -> () loc("lm_head")
    "chip.lanes"(%10, %11) <{kind = "wc_ts", shape = array<i64: 1, 1, 1, 64>, res = #f32_view, opd0 = #f32_view}> {chip.id = 7 : i64} : (!local256, !local64) -> () loc("lm_head")
    "chip.lanes"(%12, %10) <{kind = "l_bc", shape = array<i64: 1, 64, 1, 64>, res = #f32_view, opd0 = #f32_view}> {chip.id = 8 : i64} : (!local256, !local256) -> () loc("lm_head")
    "chip.pool"(%13, %12) <{kind = "max", shape = array<i64: 1, 64, 8, 8>, kernel = array<i64: 8, 1>, res = #f32_view, opd0 = #f32_view}> {chip.id = 9 : i64} : (!local64, !local256) -> () loc("lm_head")
    "chip.pool"(%14, %13) <{kind = "max", shape = array<i64: 1, 64, 1, 8>, kernel = array<i64: 1, 8>, res = #f32_view, opd0 = #f32_view}> {chip.id = 10 : i64} : (!local64, !local64) -> () loc("lm_head")
    "chip.select"(%17, %9, %14, %16) <{kind = "sel_eq", shape = array<i64: 1, 64, 1, 4>, res = #f32_view, opd0 = #f32_view, opd1 = #chip.view<dtype = f32, strides = [0, 0, 0, 0]>, opd2 = #f32_view, opd3 = #chip.const<dtype = f32, bits = 3463342888>}> {chip.id = 11 : i64, chip.wait = 3 : i64} : (!local64, !local64, !local64, !local64) -> () loc("lm_head")
    "chip.pool"(%18, %17) <{kind = "max", shape = array<i64: 1, 64, 1, 4>, kernel = array<i64: 1, 4>, res = #f32_view, opd0 = #f32_view}> {chip.id = 12 : i64} : (!local64, !local64) -> () loc("lm_head")
    "chip.ar"(%19, %18, %20) <{kind = "sub", shape = array<i64: 1, 64, 1, 1>, res = #chip.view<dtype = f32, strides = [0, 1, 0, 1]>, opd0 = #chip.view<dtype = f32, strides = [0, 16, 0, 1]>, opd1 = #chip.view<dtype = f32, strides = [0, 16, 0, 1]>, operandSegmentSizes = array<i32: 1, 1, 1>}> {chip.id = 13 : i64, chip.wait = 4 : i64} : (!local64, !local64, !local64) -> () loc("lm_head")
    "chip.lanes"(%22, %19) <{kind = "wc_ts", shape = array<i64: 1, 1, 1, 64>, res = #f32_view, opd0 = #f32_view}> {chip.id = 14 : i64} : (!local256, !local64) -> () loc("lm_head")
    "chip.pool"(%23, %22) <{kind = "max", shape = array<i64: 1, 1, 8, 8>, kernel = array<i64: 8, 1>, res = #f32_view, opd0 = #f32_view}> {chip.id = 15 : i64} : (!local64, !local256) -> () loc("lm_head")
    "chip.pool"(%24, %23) <{kind = "max", shape = array<i64: 1, 1, 1, 8>, kernel = array<i64: 1, 8>, res = #f32_view, opd0 = #f32_view}> {chip.id = 16 : i64} : (!local64, !local64) -> () loc("lm_head")
    "chip.ar"(%25, %24) <{kind = "mul", shape = array<i64: 1, 1, 1, 1>, res = #chip.view<dtype = f32, strides = [0, 1, 0, 1]>, opd0 = #chip.view<dtype = f32, strides = [0, 16, 0, 1]>, opd1 = #chip.const<dtype = f32, bits = 3212836864>, operandSegmentSizes = array<i32: 1, 1, 0>}> {chip.id = 17 : i64} : (!local64, !local64) -> () loc("lm_head")
    "chip.ar"(%26, %25) <{kind = "cast", shape = array<i64: 1, 1, 1, 1>, res = #chip.view<dtype = i32, strides = [0, 16, 0, 1]>, opd0 = #chip.view<dtype = f32, strides = [0, 1, 0, 1]>, operandSegmentSizes = array<i32: 1, 1, 0>}> {chip.id = 18 : i64} : (!local64, !local64) -> () loc("lm_head")
    "chip.dma"(%1, %26) <{kind = "copy", shape = array<i64: 1, 1, 1, 1>, res = #chip.view<dtype = i32, strides = [0, 1, 0, 1]>, opd0 = #chip.view<dtype = i32, strides = [0, 16, 0, 1]>}> {chip.id = 5 : i64, chip.wait = 18 : i64} : (!chip.global<bytes = 4>, !local64) -> () loc("lm_head")
    "func.return"() : () -> ()
  }) {bm.net = #bm.net<name = "lm_head", inputs = [#bm.input<name = "hidden_states">], outputs = [#bm.output<name = "token_id">]>, bm.scratch_address = 4295036928 : i64, bm.scratch_bytes = 8192 : i64} : () -> ()
}) : () -> ()
