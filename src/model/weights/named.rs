//! Weights by name, for the parts of a model to take.

use crate::nn::{LayerNorm, Linear, Lora, Parameter};
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// Weights by published name, to be taken by the parts of the model.
pub struct NamedWeights {
    found: HashMap<String, Arc<Parameter>>,
    taken: Vec<Arc<Parameter>>,
    adapters: HashMap<String, Lora>,
    /// From the names that the parts ask for to published names.
    published: fn(&str) -> String,
}

impl NamedWeights {
    /// Of weights already read, with adapters by the name of their linear map.
    pub fn of(parameters: Vec<Arc<Parameter>>, adapters: HashMap<String, Lora>) -> Self {
        let found = parameters.into_iter().map(|p| (p.name.clone(), p)).collect();
        NamedWeights { found, taken: Vec::new(), adapters, published: str::to_string }
    }

    /// The parts of the model ask for other names than the published ones, which `published` makes of them.
    pub fn asked_by(&mut self, published: fn(&str) -> String) {
        self.published = published;
    }

    /// The weight called `name`.
    pub fn take(&mut self, name: &str) -> Result<Arc<Parameter>> {
        let weight = self
            .found
            .remove(&(self.published)(name))
            .ok_or_else(|| Error::failed(format!("weight `{name}` asked for twice or unknown")))?;
        self.taken.push(Arc::clone(&weight));
        Ok(weight)
    }

    /// The map with weight `name.weight` and, if `biased`, bias `name.bias`.
    pub fn linear(&mut self, name: &str, biased: bool) -> Result<Linear> {
        let weight = self.take(&format!("{name}.weight"))?;
        let bias = if biased { Some(self.take(&format!("{name}.bias"))?) } else { None };
        Ok(Linear { weight, bias, lora: self.adapters.remove(&(self.published)(name)) })
    }

    /// The LayerNorm of `name.weight` and `name.bias`.
    pub fn layer_norm(&mut self, name: &str) -> Result<LayerNorm> {
        Ok(LayerNorm { weight: self.take(&format!("{name}.weight"))?, bias: self.take(&format!("{name}.bias"))? })
    }

    /// All weights that were taken, in the given order of names. Fails if one was not taken.
    pub fn finish(self, order: impl IntoIterator<Item = String>) -> Result<Vec<Arc<Parameter>>> {
        if let Some(name) = self.found.keys().min() {
            return Err(Error::failed(format!("weight `{name}` has no place in the model")));
        }
        if let Some(name) = self.adapters.keys().min() {
            return Err(Error::failed(format!("the adapter of `{name}` has no place in the model")));
        }
        let mut by_name: HashMap<String, Arc<Parameter>> =
            self.taken.into_iter().map(|p| (p.name.clone(), p)).collect();
        Ok(order.into_iter().filter_map(|name| by_name.remove(&name)).collect())
    }
}
