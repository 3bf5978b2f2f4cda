//! The record of a forward pass, and its replay backwards.
//!
//! The tape holds one closure per op. Run in reverse, each takes the gradient of its output, adds to the gradients of its inputs (in
//! place where there is one already) and of its parameters, and frees what it saved.
//!
//! Why not candle's autograd: it computes a gradient for every operand (frozen weights and constants too), allocates zeros and adds
//! for every edge of the graph, keeps everything until the end, and reports nothing when an op has no backward pass.

use crate::nn::host::in_main_memory;
use crate::nn::{GradOrder, Parameter, slice};
use crate::{Error, Result};
use candle_core::{DType, Tensor, Var};
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

type Backward = Box<dyn FnOnce(Tensor, &mut Grads<'_>) -> Result<()>>;

/// Gradients kept outside the parameters, by the parameter's address: those of one shard of a batch.
#[derive(Default)]
pub struct ParameterGrads(HashMap<usize, Tensor>);

impl ParameterGrads {
    /// The gradient of `parameter`, if the backward pass reached it.
    pub fn get(&self, parameter: &Arc<Parameter>) -> Option<&Tensor> {
        self.0.get(&address(parameter))
    }
}

fn address(parameter: &Arc<Parameter>) -> usize {
    Arc::as_ptr(parameter).addr()
}

/// A tensor and the tape node that collects its gradient (none for a constant).
#[derive(Clone)]
pub struct Value {
    /// The forward result.
    pub tensor: Tensor,
    node: Option<usize>,
    recompute: Option<Recompute>,
}

type Recompute = Arc<dyn Fn() -> Result<Tensor>>;

/// An input as the backward pass of an op gets it.
pub enum Saved {
    /// The tensor, held since the forward pass.
    Tensor(Tensor),
    /// A function that computes it a second time, where that costs less than holding it.
    Recompute(Recompute),
}

impl Saved {
    /// The tensor.
    pub fn get(self) -> Result<Tensor> {
        match self {
            Saved::Tensor(tensor) => Ok(tensor),
            Saved::Recompute(recompute) => recompute(),
        }
    }
}

impl Value {
    /// A value that takes no gradient.
    pub fn constant(tensor: Tensor) -> Self {
        Value { tensor, node: None, recompute: None }
    }

    /// The same value; a backward pass may run `recompute` instead of holding the tensor.
    pub fn recomputed_by(mut self, recompute: impl Fn() -> Result<Tensor> + 'static) -> Self {
        self.recompute = self.node.is_some().then(|| Arc::new(recompute) as Recompute);
        self
    }

    /// What an op saves of this value for its backward pass.
    pub fn save(&self) -> Saved {
        match &self.recompute {
            Some(recompute) => Saved::Recompute(Arc::clone(recompute)),
            None => Saved::Tensor(self.tensor.clone()),
        }
    }

    /// Whether the backward pass computes a gradient for it.
    pub fn requires_grad(&self) -> bool {
        self.node.is_some()
    }

    /// The tape node that collects this value's gradient.
    pub fn node(&self) -> Option<usize> {
        self.node
    }
}

/// Gradients of the values of a tape during the backward pass.
pub struct Grads<'a> {
    slots: Vec<Option<Tensor>>,
    target: GradTarget<'a>,
}

/// Where a backward pass puts the gradients of parameters.
pub enum GradTarget<'a> {
    /// Into the parameters.
    Parameters,
    /// Into a set of their own.
    Separate(&'a mut ParameterGrads),
    /// Into the parameters, as the first of two concurrent passes.
    First(&'a dyn GradOrder, IsShared<'a>),
    /// Into the parameters, each after the first pass has added its gradient. Gradients of shared parameters go into the separate
    /// set, which the caller adds after both passes.
    Second(&'a dyn GradOrder, IsShared<'a>, &'a mut ParameterGrads),
}

/// Whether several ops of a pass use a parameter, as they do tied embeddings.
pub type IsShared<'a> = &'a (dyn Fn(&Parameter) -> bool + Sync);

impl GradTarget<'_> {
    /// The same target for a nested backward pass.
    fn reborrow(&mut self) -> GradTarget<'_> {
        match self {
            GradTarget::Parameters => GradTarget::Parameters,
            GradTarget::Separate(separate) => GradTarget::Separate(separate),
            GradTarget::First(order, is_shared) => GradTarget::First(*order, is_shared),
            GradTarget::Second(order, is_shared, separate) => GradTarget::Second(*order, is_shared, separate),
        }
    }

    /// The separate set that takes the gradient of `parameter`; `None` if the parameter itself does. Waits for the first of two passes.
    fn separate(&mut self, parameter: &Arc<Parameter>) -> Result<Option<&mut ParameterGrads>> {
        match self {
            GradTarget::Parameters | GradTarget::First(..) => Ok(None),
            GradTarget::Separate(separate) => Ok(Some(separate)),
            GradTarget::Second(_, is_shared, separate) if is_shared(parameter) => Ok(Some(separate)),
            GradTarget::Second(order, ..) => order.wait_for(parameter).map(|()| None),
        }
    }

    /// Report that the gradient of `parameter` has been added.
    fn mark_added(&self, parameter: &Arc<Parameter>) -> Result<()> {
        match self {
            GradTarget::First(order, is_shared) if !is_shared(parameter) => order.mark_added(parameter),
            _ => Ok(()),
        }
    }
}

impl Grads<'_> {
    /// Add `grad` to the gradient of `node` (no-op for a constant). Takes over the storage of `grad`: nothing else may hold it.
    pub fn add(&mut self, node: Option<usize>, grad: Tensor) -> Result<()> {
        let Some(slot) = node.map(|n| &mut self.slots[n]) else { return Ok(()) };
        *slot = Some(match slot.take() {
            None => grad,
            Some(sum) if on_cpu_f32(&sum) => {
                let grad = slice::read(&grad)?;
                slice::mutate(&sum, |sum| {
                    sum.par_chunks_mut(CHUNK).zip(grad.par_chunks(CHUNK)).for_each(|(s, g)| {
                        for (s, g) in s.iter_mut().zip(g) {
                            *s += g;
                        }
                    });
                })?;
                sum
            }
            Some(sum) => (sum + grad)?,
        });
        Ok(())
    }

    /// The gradient collected so far for `node`, taken out so that a kernel may add to it in place and put it back.
    pub fn take(&mut self, node: Option<usize>) -> Option<Tensor> {
        node.and_then(|n| self.slots[n].take())
    }

    /// Let a CPU kernel add to the gradient of `parameter` in place. `kernel` gets the elements and whether they hold a sum
    /// already; if not, it must overwrite all of them.
    pub fn accumulate(&mut self, parameter: &Arc<Parameter>, kernel: impl FnOnce(&mut [f32], bool)) -> Result<()> {
        let Some(separate) = self.target.separate(parameter)? else {
            parameter.accumulate(kernel)?;
            return self.target.mark_added(parameter);
        };
        match separate.0.entry(address(parameter)) {
            Entry::Occupied(sum) => slice::mutate(sum.get(), |data| kernel(data, true)),
            Entry::Vacant(entry) => {
                let shape = parameter.var.shape().clone();
                let mut data = vec![0.0; shape.elem_count()];
                kernel(&mut data, false);
                entry.insert(slice::from_vec(data, shape)?);
                Ok(())
            }
        }
    }

    /// Add `grad` to the gradient of `parameter`. Takes over the storage of `grad`: nothing else may hold it.
    pub fn add_to_parameter(&mut self, parameter: &Arc<Parameter>, grad: Tensor) -> Result<()> {
        let Some(separate) = self.target.separate(parameter)? else {
            parameter.add_grad(grad)?;
            return self.target.mark_added(parameter);
        };
        let sum = match separate.0.remove(&address(parameter)) {
            Some(sum) => (sum + grad)?,
            None => grad,
        };
        separate.0.insert(address(parameter), sum);
        Ok(())
    }

    /// Store the gradient of `node`, after [`Grads::take`].
    pub fn set(&mut self, node: Option<usize>, grad: Tensor) {
        if let Some(n) = node {
            self.slots[n] = Some(grad);
        }
    }
}

/// Elements added by one thread at a time.
const CHUNK: usize = 1 << 14;

fn on_cpu_f32(tensor: &Tensor) -> bool {
    in_main_memory(tensor.device()) && tensor.dtype() == DType::F32
}

/// Records the ops of a forward pass.
pub struct Tape {
    nodes: RefCell<Vec<Option<Backward>>>,
    recording: bool,
    fused: bool,
    dropout: Option<u64>,
}

impl Tape {
    /// A tape that records, with fused kernels where the device has them.
    pub fn new() -> Self {
        Tape { nodes: RefCell::default(), recording: true, fused: true, dropout: None }
    }

    /// A tape that computes without recording.
    pub fn no_grad() -> Self {
        Tape { nodes: RefCell::default(), recording: false, fused: true, dropout: None }
    }

    /// The same tape with every op in candle ops, as on devices without fused kernels.
    pub fn reference(mut self) -> Self {
        self.fused = false;
        self
    }

    /// The same tape with dropout drawn from `seed`; `None` turns dropout off.
    pub fn with_dropout(mut self, seed: Option<u64>) -> Self {
        self.dropout = seed;
        self
    }

    /// Seed of this pass's dropout; `None` if it is off.
    pub fn dropout_seed(&self) -> Option<u64> {
        self.dropout
    }

    /// Whether ops are recorded.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// Whether ops on `tensor` run as fused CPU kernels.
    pub fn is_fused(&self, tensor: &Tensor) -> bool {
        self.fused && on_cpu_f32(tensor)
    }

    /// Whether ops on a weight run as fused CPU kernels, which read f32 and bf16.
    pub fn is_fused_weight(&self, weight: &Parameter) -> bool {
        let tensor = weight.compute_var().as_tensor();
        self.fused && in_main_memory(tensor.device()) && matches!(tensor.dtype(), DType::F32 | DType::BF16)
    }

    /// A leaf whose gradient [`Tape::backward_with_leaves`] returns.
    pub fn leaf(&self, tensor: Tensor) -> Value {
        if !self.recording {
            return Value::constant(tensor);
        }
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(None);
        Value { tensor, node: Some(nodes.len() - 1), recompute: None }
    }

    /// Record an op's result. `backward` gets the gradient of `tensor`.
    /// Without `requires_grad` (no input or parameter needs a gradient) the result is a constant.
    pub fn record(
        &self,
        tensor: Tensor,
        requires_grad: bool,
        backward: impl FnOnce(Tensor, &mut Grads<'_>) -> Result<()> + 'static,
    ) -> Value {
        if !(self.recording && requires_grad) {
            return Value::constant(tensor);
        }
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Some(Box::new(backward)));
        Value { tensor, node: Some(nodes.len() - 1), recompute: None }
    }

    /// `f(x)`, saving only `x`: the backward pass runs `f` again (gradient checkpointing). `trainable` says whether `f` uses a
    /// trainable parameter.
    pub fn gradient_checkpoint(
        &self,
        x: &Value,
        trainable: bool,
        f: impl Fn(&Tape, Value) -> Result<Value> + 'static,
    ) -> Result<Value> {
        let (node, fused, dropout) = (x.node, self.fused, self.dropout);
        let tape = move |recording| Tape { nodes: RefCell::default(), recording, fused, dropout };
        let y = f(&tape(false), Value::constant(x.tensor.clone()))?;
        let x_tensor = x.tensor.clone();
        Ok(self.record(y.tensor, trainable || x.requires_grad(), move |grad, grads| {
            let inner = tape(true);
            let leaf = match node {
                Some(_) => inner.leaf(x_tensor),
                None => Value::constant(x_tensor),
            };
            let y = f(&inner, leaf.clone())?;
            match inner.replay(vec![(y, grad)], &[&leaf], grads.target.reborrow())?.pop().flatten() {
                Some(dx) => grads.add(node, dx),
                None => Ok(()),
            }
        }))
    }

    /// An op of one input written in candle ops and differentiated by candle's autograd; only for ops whose cost does not matter.
    /// `f` must use only ops whose candle backward pass is right.
    pub fn candle_op(&self, x: &Value, f: impl Fn(&Tensor) -> candle_core::Result<Tensor> + 'static) -> Result<Value> {
        let (input, node) = (x.tensor.detach(), x.node);
        let y = f(&input)?.detach();
        Ok(self.record(y, x.requires_grad(), move |grad, grads| {
            let input = Var::from_tensor(&input)?;
            // candle starts from a gradient of ones; multiplying by `grad` makes that the gradient of `sum(f(x) * grad)`.
            let store = (f(input.as_tensor())? * grad.detach())?.backward()?;
            match store.get(&input) {
                Some(g) => grads.add(node, g.detach().copy()?),
                None => Ok(()),
            }
        }))
    }

    /// Backward pass from (value, upstream gradient) pairs, adding to the gradients of the parameters.
    pub fn backward(self, upstream: Vec<(Value, Tensor)>) -> Result<()> {
        self.backward_to(upstream, GradTarget::Parameters)
    }

    /// As [`Tape::backward`], with the gradients of parameters going to `target`.
    pub fn backward_to(self, upstream: Vec<(Value, Tensor)>, target: GradTarget<'_>) -> Result<()> {
        self.replay(upstream, &[], target).map(|_| ())
    }

    /// As [`Tape::backward`], and return the gradients of `leaves` (`None` for a leaf that none reached).
    pub fn backward_with_leaves(
        self,
        upstream: Vec<(Value, Tensor)>,
        leaves: &[&Value],
    ) -> Result<Vec<Option<Tensor>>> {
        self.replay(upstream, leaves, GradTarget::Parameters)
    }

    fn replay(
        self,
        upstream: Vec<(Value, Tensor)>,
        leaves: &[&Value],
        target: GradTarget<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let mut nodes = self.nodes.into_inner();
        let mut grads = Grads { slots: (0..nodes.len()).map(|_| None).collect(), target };
        for (value, grad) in upstream {
            if value.tensor.dims() != grad.dims() {
                return Err(Error::failed(format!(
                    "gradient of shape {:?} for a value of shape {:?}",
                    grad.dims(),
                    value.tensor.dims()
                )));
            }
            grads.add(value.node, grad)?;
        }
        while let Some(node) = nodes.pop() {
            let index = nodes.len();
            if let Some(backward) = node
                && let Some(grad) = grads.slots[index].take()
            {
                backward(grad, &mut grads)?;
            }
        }
        Ok(leaves.iter().map(|v| v.node.and_then(|n| grads.slots[n].take())).collect())
    }
}

impl Default for Tape {
    fn default() -> Self {
        Self::new()
    }
}
