"""Configurations for the tests, written from published hyper-parameters: the keys that each model type really uses.

Each entry: name of the profile → config.json, preprocessor_config.json. Files of the publishers are not copied.
"""

# ruff: noqa: E501 - one model a line

from __future__ import annotations

# fmt: off
CLIP_336 = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
}
SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}
QWEN25_TOWER = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
QWEN3_TOWER = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "num_position_embeddings": 2304,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
INTERNVIT = {
    "hidden_size": 1024,
    "image_size": 448,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
}
PIXTRAL_TOWER = {
    "model_type": "pixtral",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
}
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
GRANITE_PINPOINTS = sorted([384 * a, 384 * b] for a in range(1, 11) for b in range(1, 11) if a * b <= 10)
CANDIDATES = [
    [384, 384],
    [384, 768],
    [768, 384],
    [384, 1152],
    [1152, 384],
    [384, 1536],
    [1536, 384],
    [768, 768],
    [384, 1920],
    [1920, 384],
    [384, 2304],
    [2304, 384],
    [768, 1152],
    [1152, 768],
    [384, 2688],
    [2688, 384],
    [384, 3072],
    [3072, 384],
    [768, 1536],
    [1536, 768],
    [384, 3456],
    [3456, 384],
    [1152, 1152],
]
EVERY_SIXTH = [("full_attention" if (i + 1) % 6 == 0 else "sliding_attention") for i in range(60)]
EVERY_FIFTH = [("full_attention" if (i + 1) % 5 == 0 else "sliding_attention") for i in range(35)]
EVERY_FOURTH = [("full_attention" if (i + 1) % 4 == 0 else "linear_attention") for i in range(40)]
MLA = {"kv_lora_rank": 512, "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
SMART_14 = {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "merge_size": 2}
SMART_16 = {"size": {"shortest_edge": 65536, "longest_edge": 16777216}, "patch_size": 16, "merge_size": 2}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


# fmt: on


def text(model_type, layers, hidden, ff, heads, kv_heads, vocab, context, **more):
    """Return the keys that every decoder has."""
    return {
        "model_type": model_type,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": ff,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": context,
        **more,
    }


def whole(model_type, language, vision, **more):
    """Return a configuration with both parts nested."""
    return {"model_type": model_type, "text_config": language, "vision_config": vision, **more}


# fmt: off
CONFIGURATIONS = {
    "llava-1.5-7b": (whole("llava", {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064}, CLIP_336, vision_feature_layer=-2), {"crop_size": {"height": 336, "width": 336}, "size": {"shortest_edge": 336}}),
    "llava-1.5-13b": (whole("llava", text("llama", 40, 5120, 13824, 40, 40, 32064, 4096), CLIP_336), {"crop_size": 336}),
    "llava-1.6-mistral-7b": (whole("llava_next", text("mistral", 32, 4096, 14336, 32, 8, 32064, 32768, sliding_window=None), CLIP_336, image_grid_pinpoints=PINPOINTS), {}),
    "llava-1.6-34b": (whole("llava_next", text("llama", 60, 7168, 20480, 56, 8, 64064, 4096), CLIP_336, image_grid_pinpoints=PINPOINTS), {}),
    "llama-3.2-11b-vision": (whole("mllama", text("mllama_text_model", 40, 4096, 14336, 32, 8, 128256, 131072, cross_attention_layers=[3, 8, 13, 18, 23, 28, 33, 38], rope_scaling=LLAMA3_ROPE, tie_word_embeddings=False), {"hidden_size": 1280, "image_size": 560, "intermediate_size": 5120, "attention_heads": 16, "num_hidden_layers": 32, "num_global_layers": 8, "patch_size": 14, "max_num_tiles": 4, "vision_output_dim": 7680}), {"max_image_tiles": 4, "size": {"height": 560, "width": 560}}),
    "llama-4-scout": (whole("llama4", text("llama4_text", 48, 5120, 8192, 40, 8, 202048, 10485760, head_dim=128, attention_chunk_size=8192, interleave_moe_layer_step=1, intermediate_size_mlp=16384, num_local_experts=16, num_experts_per_tok=1, rope_scaling=LLAMA3_ROPE), {"hidden_size": 1408, "intermediate_size": 5632, "num_attention_heads": 16, "num_hidden_layers": 34, "patch_size": 14, "image_size": 336}), {}),
    "qwen2-vl-2b": ({**text("qwen2_vl", 28, 1536, 8960, 12, 2, 151936, 32768, tie_word_embeddings=True, use_sliding_window=False, sliding_window=32768, rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]}), "vision_config": {"hidden_size": 1536, "spatial_patch_size": 14}}, SMART_14),
    "qwen2-vl-72b": ({**text("qwen2_vl", 80, 8192, 29568, 64, 8, 152064, 32768), "vision_config": {"hidden_size": 8192}}, SMART_14),
    "qwen2.5-vl-3b": ({**text("qwen2_5_vl", 36, 2048, 11008, 16, 2, 151936, 128000, tie_word_embeddings=True, use_sliding_window=False, sliding_window=32768), "vision_config": {**QWEN25_TOWER, "out_hidden_size": 2048}}, SMART_14),
    "qwen2.5-vl-7b": ({**text("qwen2_5_vl", 28, 3584, 18944, 28, 4, 152064, 128000), "vision_config": QWEN25_TOWER}, SMART_14),
    "qwen2.5-vl-72b": ({**text("qwen2_5_vl", 80, 8192, 29568, 64, 8, 152064, 128000), "vision_config": {**QWEN25_TOWER, "intermediate_size": 3456}}, SMART_14),
    "qwen3-vl-2b": (whole("qwen3_vl", text("qwen3_vl_text", 28, 2048, 6144, 16, 8, 151936, 262144, head_dim=128), {**QWEN3_TOWER, "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "deepstack_visual_indexes": [5, 11, 17]}, tie_word_embeddings=True), SMART_16),
    "qwen3-vl-8b": (whole("qwen3_vl", text("qwen3_vl_text", 36, 4096, 12288, 32, 8, 151936, 262144, head_dim=128), {**QWEN3_TOWER, "deepstack_visual_indexes": [8, 16, 24]}, tie_word_embeddings=False), SMART_16),
    "qwen3-vl-30b-a3b": (whole("qwen3_vl_moe", text("qwen3_vl_moe_text", 48, 2048, 6144, 32, 4, 151936, 262144, head_dim=128, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8, decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=True), {**QWEN3_TOWER, "deepstack_visual_indexes": [8, 16, 24]}, tie_word_embeddings=False), SMART_16),
    "qwen3-vl-235b-a22b": (whole("qwen3_vl_moe", text("qwen3_vl_moe_text", 94, 4096, 12288, 64, 4, 151936, 262144, head_dim=128, moe_intermediate_size=1536, num_experts=128, num_experts_per_tok=8), {**QWEN3_TOWER, "deepstack_visual_indexes": [8, 16, 24]}, tie_word_embeddings=False), SMART_16),
    "qwen3.5-9b": (whole("qwen3_5", text("qwen3_5_text", 32, 4096, 12288, 16, 4, 248320, 262144, head_dim=256, layer_types=EVERY_FOURTH[:32], linear_num_key_heads=16, linear_num_value_heads=32, linear_key_head_dim=128, linear_conv_kernel_dim=4, rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.25, "rope_theta": 10000000}), QWEN3_TOWER, tie_word_embeddings=False), SMART_16),
    "qwen3.5-35b-a3b": (whole("qwen3_5_moe", text("qwen3_5_moe_text", 40, 2048, 512, 16, 2, 248320, 262144, head_dim=256, layer_types=EVERY_FOURTH, linear_num_key_heads=16, linear_num_value_heads=32, linear_key_head_dim=128, linear_conv_kernel_dim=4, rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.25, "rope_theta": 10000000}, num_experts=256, num_experts_per_tok=8, moe_intermediate_size=512, shared_expert_intermediate_size=512), QWEN3_TOWER, tie_word_embeddings=False), SMART_16),
    "minicpm-llama3-v-2.5": ({**text("minicpmv", 32, 4096, 14336, 32, 8, 128256, 8192), "version": "2.5", "query_num": 96, "image_size": 448, "vision_config": {**SO400M, "model_type": "idefics2", "image_size": 980}}, {"scale_resolution": 448, "max_slice_nums": 9, "image_feature_size": 96}),
    "minicpm-v-2.6": ({**text("minicpmv", 28, 3584, 18944, 28, 4, 151666, 32768), "version": 2.6, "query_num": 64, "image_size": 448, "vision_config": {**SO400M, "image_size": 980}}, {"scale_resolution": 448, "max_slice_nums": 9, "use_image_id": True}),
    "minicpm-v-4": ({**text("minicpmv", 32, 2560, 10240, 32, 2, 73448, 32768, head_dim=128, rope_scaling={"rope_type": "longrope", "factor": 1.0}), "version": 4.0, "query_num": 64, "image_size": 448, "vision_config": {**SO400M, "image_size": 980}}, {"scale_resolution": 448, "max_slice_nums": 9}),
    "minicpm-v-4.5": ({**text("minicpmv", 36, 4096, 12288, 32, 8, 151748, 40960, head_dim=128), "version": 4.5, "query_num": 64, "image_size": 448, "vision_config": {**SO400M, "image_size": 980}}, {"scale_resolution": 448, "max_slice_nums": 9}),
    "internvl3-2b": ({"model_type": "internvl_chat", "llm_config": text("qwen2", 28, 1536, 8960, 12, 2, 151674, 32768, rope_scaling={"type": "dynamic", "factor": 2.0}, tie_word_embeddings=False), "vision_config": INTERNVIT, "force_image_size": 448, "downsample_ratio": 0.5, "min_dynamic_patch": 1, "max_dynamic_patch": 12, "use_thumbnail": True}, {"size": 448, "crop_size": 448}),
    "internvl3-38b": ({"model_type": "internvl_chat", "llm_config": text("qwen2", 64, 5120, 27648, 40, 8, 151674, 32768, tie_word_embeddings=False), "vision_config": {**INTERNVIT, "hidden_size": 3200, "intermediate_size": 12800, "num_attention_heads": 25, "num_hidden_layers": 45, "qk_normalization": True, "norm_type": "rms_norm"}, "force_image_size": 448}, {}),
    "internvl3.5-8b": (whole("internvl", text("qwen3", 36, 4096, 12288, 32, 8, 151936, 40960, head_dim=128, tie_word_embeddings=False), {**INTERNVIT, "image_size": [448, 448], "patch_size": [14, 14]}, image_seq_length=256), {"size": {"height": 448, "width": 448}}),
    "gemma-3-4b": (whole("gemma3", {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, {**SO400M, "image_size": 896}, mm_tokens_per_image=256), {"size": {"height": 896, "width": 896}, "image_seq_length": 256, "do_pan_and_scan": None}),
    "gemma-3-27b": (whole("gemma3", text("gemma3_text", 62, 5376, 21504, 32, 16, 262208, 131072, head_dim=128, query_pre_attn_scalar=168, sliding_window=1024, rope_scaling={"rope_type": "linear", "factor": 8.0}), {**SO400M, "image_size": 896}, mm_tokens_per_image=256), {}),
    "gemma-4-26b-a4b": (whole("gemma4", text("gemma4_text", 30, 2816, 2112, 16, 8, 262144, 262144, head_dim=256, global_head_dim=512, num_global_key_value_heads=2, attention_k_eq_v=True, layer_types=EVERY_SIXTH[:30], sliding_window=1024, enable_moe_block=True, num_experts=128, top_k_experts=8, moe_intermediate_size=704, hidden_size_per_layer_input=0, rope_parameters={"full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25}, "sliding_attention": {"rope_type": "default"}}), {**SO400M, "patch_size": 16, "pooling_kernel_size": 3, "position_embedding_size": 10240, "default_output_length": 280, "standardize": True}, vision_soft_tokens_per_image=280), {}),
    "gemma-4-31b": (whole("gemma4", text("gemma4_text", 60, 5376, 21504, 32, 16, 262144, 262144, head_dim=256, global_head_dim=512, num_global_key_value_heads=4, attention_k_eq_v=True, layer_types=EVERY_SIXTH, sliding_window=1024, enable_moe_block=False, num_experts=None, rope_parameters={"full_attention": {"rope_type": "proportional"}}), {**SO400M, "patch_size": 16, "pooling_kernel_size": 3, "position_embedding_size": 10240, "standardize": True}), {}),
    "gemma-4-e2b": (whole("gemma4", text("gemma4_text", 35, 1536, 6144, 8, 1, 262144, 131072, head_dim=256, global_head_dim=512, layer_types=EVERY_FIFTH, sliding_window=512, num_kv_shared_layers=20, use_double_wide_mlp=True, hidden_size_per_layer_input=256, enable_moe_block=False, rope_parameters={"full_attention": {"rope_type": "proportional"}}), {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 16, "patch_size": 16, "pooling_kernel_size": 3, "position_embedding_size": 10240}), {}),
    "pixtral-12b": (whole("llava", text("mistral", 40, 5120, 14336, 32, 8, 131072, 1024000, head_dim=128, sliding_window=None), {**PIXTRAL_TOWER, "patch_size": 16, "image_size": 1024}), {"size": {"longest_edge": 1024}, "patch_size": 16}),
    "mistral-small-3.1-24b": (whole("mistral3", text("mistral", 40, 5120, 32768, 32, 8, 131072, 131072, head_dim=128, sliding_window=None), {**PIXTRAL_TOWER, "patch_size": 14, "image_size": 1540}, spatial_merge_size=2), {"size": {"longest_edge": 1540}, "patch_size": 14}),
    "smolvlm2-2.2b": (whole("smolvlm", text("llama", 24, 2048, 8192, 32, 32, 49280, 8192, head_dim=64, tie_word_embeddings=False), {**SO400M, "image_size": 384}, scale_factor=3, tie_word_embeddings=False), {"size": {"longest_edge": 1536}, "max_image_size": {"longest_edge": 384}}),
    "smolvlm2-256m": (whole("smolvlm", text("llama", 30, 576, 1536, 9, 3, 49280, 8192), {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12, "patch_size": 16, "image_size": 512}, scale_factor=4, tie_word_embeddings=False), {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}),
    "idefics3-8b": (whole("idefics3", text("llama", 32, 4096, 14336, 32, 8, 128259, 131072), {**SO400M, "image_size": 364}, scale_factor=2, tie_word_embeddings=False), {"size": {"longest_edge": 1456}, "max_image_size": {"longest_edge": 364}}),
    "glm-4.1v-9b": ({**text("glm4v", 40, 4096, 13696, 32, 2, 151552, 65536, attention_bias=True, partial_rotary_factor=0.5), "vision_config": {"hidden_size": 1536, "depth": 24, "num_heads": 12, "intermediate_size": 13696, "out_hidden_size": 4096, "image_size": 336, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}}, {"size": {"shortest_edge": 12544, "longest_edge": 9633792}, "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}),
    "glm-4.5v": (whole("glm4v_moe", text("glm4v_moe_text", 46, 4096, 10944, 96, 8, 151552, 65536, head_dim=128, attention_bias=True, use_qk_norm=False, n_routed_experts=128, num_experts_per_tok=8, n_shared_experts=1, moe_intermediate_size=1408, first_k_dense_replace=1, norm_topk_prob=True, routed_scaling_factor=1.0, partial_rotary_factor=0.5), {"hidden_size": 1536, "depth": 24, "num_heads": 12, "intermediate_size": 10944, "out_hidden_size": 4096, "image_size": 336, "patch_size": 14}), {"size": {"shortest_edge": 12544, "longest_edge": 9633792}}),
    "deepseek-vl2-tiny": ({"model_type": "deepseek_vl_v2", "language_config": {**text("deepseek_v2", 12, 1280, 6848, 10, 10, 129280, 4096, use_mla=False, kv_lora_rank=None, n_routed_experts=64, num_experts_per_tok=6, n_shared_experts=2, moe_intermediate_size=896, first_k_dense_replace=1)}, "vision_config": {"layers": 27, "width": 1152, "mlp_ratio": 3.7362, "image_size": 384, "patch_size": 14}, "candidate_resolutions": CANDIDATES}, {}),
    "deepseek-vl2-small": ({"model_type": "deepseek_vl_v2", "language_config": {**text("deepseek_v2", 27, 2048, 10944, 16, 16, 102400, 4096, n_routed_experts=64, num_experts_per_tok=6, n_shared_experts=2, moe_intermediate_size=1408, first_k_dense_replace=1, **MLA)}, "vision_config": {"layers": 27, "width": 1152, "image_size": 384, "patch_size": 14}, "candidate_resolutions": CANDIDATES}, {}),
    "deepseek-ocr": ({"model_type": "deepseek_vl_v2", "architectures": ["DeepseekOCRForCausalLM"], "language_config": {**text("deepseek_v2", 12, 1280, 6848, 10, 10, 129280, 8192, use_mla=False, kv_lora_rank=None, n_routed_experts=64, num_experts_per_tok=6, n_shared_experts=2, moe_intermediate_size=896, first_k_dense_replace=1)}, "vision_config": {"image_size": 1024, "width": {"clip-l-14-224": {"heads": 16, "image_size": 224, "layers": 24, "patch_size": 14, "width": 1024}, "sam_vit_b": {"heads": 12, "layers": 12, "width": 768, "global_attn_indexes": [2, 5, 8, 11]}}}}, {}),
    "deepseek-v2-lite": ({**text("deepseek_v2", 27, 2048, 10944, 16, 16, 102400, 163840, n_routed_experts=64, num_experts_per_tok=6, n_shared_experts=2, moe_intermediate_size=1408, first_k_dense_replace=1, routed_scaling_factor=1.0, **MLA)}, {}),
    "kimi-vl-a3b": (whole("kimi_vl", text("deepseek_v3", 27, 2048, 11264, 16, 16, 163840, 131072, n_routed_experts=64, num_experts_per_tok=6, n_shared_experts=2, moe_intermediate_size=1408, first_k_dense_replace=1, scoring_func="sigmoid", topk_method="noaux_tc", routed_scaling_factor=1.0, **MLA), SO400M), {"in_token_limit": 4096}),
    "kimi-k2.5": (whole("kimi_k25", text("kimi_k2", 61, 7168, 18432, 64, 64, 163840, 262144, n_routed_experts=384, num_experts_per_tok=8, n_shared_experts=1, moe_intermediate_size=2048, first_k_dense_replace=1, scoring_func="sigmoid", topk_method="noaux_tc", norm_topk_prob=True, routed_scaling_factor=2.827, **{**MLA, "q_lora_rank": 1536}), {"vt_hidden_size": 1152, "vt_intermediate_size": 4304, "vt_num_attention_heads": 16, "vt_num_hidden_layers": 27, "patch_size": 14, "init_pos_emb_height": 64}), {}),
    "got-ocr2": (whole("got_ocr2", text("qwen2", 24, 1024, 2816, 16, 16, 151860, 32768), {"hidden_size": 768, "mlp_dim": 3072, "num_attention_heads": 12, "num_hidden_layers": 12, "patch_size": 16, "image_size": 1024}, tie_word_embeddings=True), {}),
    "granite-vision-3.3-2b": (whole("llava_next", text("granite", 40, 2048, 8192, 32, 8, 49156, 131072, tie_word_embeddings=True), {**SO400M, "image_size": 384}, vision_feature_layer=[-24, -20, -12, -1], image_grid_pinpoints=GRANITE_PINPOINTS, tie_word_embeddings=True), {}),
    "phi-3.5-vision": ({**text("phi3_v", 32, 3072, 8192, 32, 32, 32064, 131072, sliding_window=262144, rope_scaling={"type": "su"}), "img_processor": {"name": "clip_vision_model", "image_dim_out": 1024}}, {"num_crops": 16}),
    "phi-4-multimodal": ({**text("phi4mm", 32, 3072, 8192, 24, 8, 200064, 131072, partial_rotary_factor=0.75, sliding_window=262144, tie_word_embeddings=True, rope_scaling={"type": "longrope"})}, {"dynamic_hd": 36}),
    "phi-3.5-mini": ({**text("phi3", 32, 3072, 8192, 32, 32, 32064, 131072, sliding_window=262144, rope_scaling={"type": "longrope"})}, {}),
    "lfm2-vl-450m": (whole("lfm2_vl", {"model_type": "lfm2", "hidden_size": 1024, "block_ff_dim": 6656, "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 65536, "max_position_embeddings": 128000, "full_attn_idxs": [2, 5, 8, 10, 12, 14], "conv_L_cache": 3}, {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12, "patch_size": 16, "image_size": 256}, downsample_factor=2), {}),
    "gemma-3n-e4b": (whole("gemma3n", text("gemma3n_text", 35, 2048, [16384] * 35, 8, 2, 262400, 32768, head_dim=256, layer_types=EVERY_FIFTH, sliding_window=512, num_kv_shared_layers=15, hidden_size_per_layer_input=256), {"hidden_size": 2048}), {"size": {"height": 768, "width": 768}}),
    "gemma-3n-e2b": (whole("gemma3n", text("gemma3n_text", 30, 2048, [8192] * 30, 8, 2, 262400, 32768, head_dim=256, layer_types=EVERY_FIFTH[:30], sliding_window=512, num_kv_shared_layers=10, hidden_size_per_layer_input=256), {"hidden_size": 2048}), {}),
    "paligemma-3b-224": (whole("paligemma", text("gemma", 18, 2048, 16384, 8, 1, 257216, 8192, head_dim=256), {**SO400M, "image_size": 224}), {"size": {"height": 224, "width": 224}}),
    "paligemma2-3b-448": (whole("paligemma", text("gemma2", 26, 2304, 9216, 8, 4, 257216, 8192, head_dim=256, sliding_window=4096), {**SO400M, "image_size": 448}), {"size": {"height": 448, "width": 448}}),
    "aya-vision-8b": (whole("aya_vision", text("cohere2", 32, 4096, 14336, 32, 8, 256000, 8192, head_dim=128, sliding_window=4096, sliding_window_pattern=4), {**SO400M, "image_size": 364}), {"size": {"height": 364, "width": 364}}),
    "llava-onevision-7b": (whole("llava_onevision", text("qwen2", 28, 3584, 18944, 28, 4, 152128, 32768), {**SO400M, "num_hidden_layers": 26, "image_size": 384}, image_grid_pinpoints=[[384 * a, 384 * b] for a in range(1, 7) for b in range(1, 7)], tie_word_embeddings=False), {}),
    "lightonocr-2-1b": (whole("mistral3", text("qwen3", 28, 1024, 3072, 16, 8, 151936, 16384, head_dim=128, tie_word_embeddings=True), {**PIXTRAL_TOWER, "patch_size": 14, "image_size": 1540}, architectures=["LightOnOCRForConditionalGeneration"], spatial_merge_size=2, tie_word_embeddings=True), {"size": {"longest_edge": 1540}, "patch_size": 14}),
    "paddleocr-vl": ({**text("paddleocr_vl", 18, 1024, 3072, 16, 2, 103424, 131072, head_dim=128), "vision_config": {**SO400M, "image_size": 384, "spatial_merge_size": 2}}, {"min_pixels": 147384, "max_pixels": 2822400, "patch_size": 14, "merge_size": 2}),
    "dots.ocr": ({**text("dots_ocr", 28, 1536, 8960, 12, 2, 151936, 131072, attention_bias=True), "vision_config": {"embed_dim": 1536, "hidden_size": 1536, "intermediate_size": 4224, "num_hidden_layers": 42, "num_attention_heads": 12, "patch_size": 14, "spatial_merge_size": 2}}, {"min_pixels": 3136, "max_pixels": 11289600, "patch_size": 14, "merge_size": 2}),
    "lfm2.5-vl-1.6b": (whole("lfm2_vl", {"model_type": "lfm2", "hidden_size": 2048, "block_ff_dim": 12288, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 65536, "max_position_embeddings": 128000, "full_attn_idxs": [2, 5, 8, 10, 12, 14], "conv_L_cache": 3}, {**SO400M, "patch_size": 16, "image_size": 256}, downsample_factor=2, projector_hidden_size=2048, projector_use_layernorm=False), {}),
    "molmo-7b-d": ({**text("molmo", 28, 3584, 37888, 28, 4, 152064, 4096, additional_vocab_size=128)}, {}),
    "qwq-32b": (text("qwen2", 64, 5120, 27648, 40, 8, 152064, 131072, use_sliding_window=False, sliding_window=32768), {}),
    "qwen2.5-32b": (text("qwen2", 64, 5120, 27648, 40, 8, 152064, 32768), {}),
    "llama-3.1-8b": (text("llama", 32, 4096, 14336, 32, 8, 128256, 131072, rope_scaling=LLAMA3_ROPE), {}),
    "llama-3.1-70b": (text("llama", 80, 8192, 28672, 64, 8, 128256, 131072, rope_scaling=LLAMA3_ROPE), {}),
    "gpt-oss-20b": (text("gpt_oss", 24, 2880, 2880, 64, 8, 201088, 131072, head_dim=64, num_local_experts=32, num_experts_per_tok=4, sliding_window=128, attention_bias=True, rope_scaling={"rope_type": "yarn", "factor": 32.0}), {}),
}
# fmt: on
