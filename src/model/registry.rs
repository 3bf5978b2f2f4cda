//! The model families that this program knows, by the `model_type` of `config.json`.

use super::architecture::Architecture;
use super::causal_lm::families::{LLAMA, QWEN2, QWEN3};
use super::json_fields::Fields;
use super::qwen_vl::VisionFamily;
use super::{causal_lm, qwen2_5_vl, qwen2_vl, qwen3_vl};
use crate::{Error, Result};
use serde_json::Value;
use std::sync::Arc;

/// Models that are easily taken for a known one, by `model_type`.
const UNSUPPORTED: [(&str, &str); 14] = [
    ("qwen2_5_omni", "Qwen2.5-Omni"),
    ("qwen2_5_omni_thinker", "Qwen2.5-Omni"),
    ("qwen2_5_vl_text", "the text part of Qwen2.5-VL alone"),
    ("qwen3_vl_moe", "Qwen3-VL with experts"),
    ("qwen3_omni_moe", "Qwen3-Omni"),
    ("qwen2_moe", "Qwen2 with experts, without vision"),
    ("qwen2_audio", "Qwen2-Audio"),
    ("mistral", "Mistral"),
    ("smollm3", "SmolLM3"),
    ("qwen3_moe", "Qwen3 with experts, without vision"),
    ("llava", "LLaVA"),
    ("llava_onevision", "LLaVA-OneVision"),
    ("internvl", "InternVL"),
    ("mllama", "Llama 3.2 Vision"),
];

/// Read a parsed `config.json` by its `model_type`.
///
/// # Errors
/// An input error that names the field: another model type, quantised weights, or what the family does not support.
pub fn parse_architecture(json: &Value) -> Result<Arc<dyn Architecture>> {
    let root = Fields::root(json)?;
    let Some(model_type) = root.string("model_type")? else {
        return Err(Error::input("model_type is missing; a Qwen2.5-VL checkpoint has `qwen2_5_vl`"));
    };
    let supported = || root.section("quantization_config").and_then(|section| section.map_or(Ok(()), refuse_quantised));
    if let Some(family) = [&QWEN2, &QWEN3, &LLAMA].into_iter().find(|family| family.model_type == model_type) {
        supported()?;
        return Ok(Arc::new(causal_lm::Config::from_json(family, json)?));
    }
    match model_type.as_str() {
        qwen2_5_vl::VisionConfig::MODEL_TYPE => {
            supported()?;
            Ok(Arc::new(qwen2_5_vl::Config::from_json(json)?))
        }
        qwen2_vl::VisionConfig::MODEL_TYPE => {
            supported()?;
            Ok(Arc::new(qwen2_vl::Config::from_json(json)?))
        }
        qwen3_vl::VisionConfig::MODEL_TYPE => {
            supported()?;
            Ok(Arc::new(qwen3_vl::Config::from_json(json)?))
        }
        other => {
            let known = UNSUPPORTED.iter().find(|(model_type, _)| *model_type == other);
            let name = known.map_or(String::new(), |(_, name)| format!(" ({name})"));
            Err(Error::input(format!(
                "model_type: `{other}`{name} is not supported; only Qwen2.5-VL (`qwen2_5_vl`), Qwen2-VL (`qwen2_vl`), Qwen3-VL (`qwen3_vl`) and, without vision, Qwen2.5 (`qwen2`), Qwen3 \
                 (`qwen3`) and Llama (`llama`) are"
            )))
        }
    }
}

fn refuse_quantised(section: Fields) -> Result<()> {
    let method = section.string("quant_method")?.unwrap_or_else(|| "not named".into());
    Err(section.error(
        "quant_method",
        format!(
            "{method}: quantised weights are not supported; give the checkpoint that they were made from, unquantised"
        ),
    ))
}
