//! The record of a forward pass, and its replay backwards.
//!
//! candle's own autograd computes a gradient for every operand (frozen weights and constants too), allocates zeros and adds
//! for every edge of the graph, keeps everything until the end, and says nothing when an op has no backward. This tape holds
//! one closure per op: run in reverse, each takes the gradient of its output, adds to the gradients of its inputs (in place
//! where there is one already) and to those of its parameters, and frees what it had saved.

use crate::nn::{GradOrder, Parameter, slice};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor, Var};
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

type Backward = Box<dyn FnOnce(Tensor, &mut Grads<'_>) -> Result<()>>;

/// Gradients of parameters that are kept apart from the parameters' own, by their address: those of one lane of a batch.
#[derive(Default)]
pub struct ParameterGrads(HashMap<usize, Tensor>);

impl ParameterGrads {
    /// The gradient of `parameter`, if one has arrived.
    pub fn get(&self, parameter: &Arc<Parameter>) -> Option<&Tensor> {
        self.0.get(&address(parameter))
    }
}

fn address(parameter: &Arc<Parameter>) -> usize {
    Arc::as_ptr(parameter).addr()
}

/// A tensor, and where its gradient goes (nowhere for a constant).
#[derive(Clone)]
pub struct Value {
    /// The forward result.
    pub tensor: Tensor,
    node: Option<usize>,
    again: Option<Again>,
}

type Again = Arc<dyn Fn() -> Result<Tensor>>;

/// What an op's backward pass needs of an input: the tensor, or how to make it again.
pub enum Source {
    /// The tensor.
    Kept(Tensor),
    /// Cheap enough to be computed twice.
    Again(Again),
}

impl Source {
    /// The tensor.
    pub fn get(self) -> Result<Tensor> {
        match self {
            Source::Kept(tensor) => Ok(tensor),
            Source::Again(again) => again(),
        }
    }
}

impl Value {
    /// A value that takes no gradient.
    pub fn constant(tensor: Tensor) -> Self {
        Value { tensor, node: None, again: None }
    }

    /// The same value for a backward pass that may run `again` to have its tensor instead of keeping it.
    pub fn recomputed_by(mut self, again: impl Fn() -> Result<Tensor> + 'static) -> Self {
        self.again = self.node.is_some().then(|| Arc::new(again) as Again);
        self
    }

    /// The tensor for a backward pass.
    pub fn source(&self) -> Source {
        match &self.again {
            Some(again) => Source::Again(Arc::clone(again)),
            None => Source::Kept(self.tensor.clone()),
        }
    }

    /// Whether a gradient is wanted.
    pub fn requires_grad(&self) -> bool {
        self.node.is_some()
    }

    /// The place of this value's gradient.
    pub fn node(&self) -> Option<usize> {
        self.node
    }
}

/// Gradients of the values of a tape during the backward pass.
pub struct Grads<'a> {
    slots: Vec<Option<Tensor>>,
    sink: GradTarget<'a>,
}

/// Where the gradients of parameters go.
pub enum GradTarget<'a> {
    /// To the parameters.
    Parameters,
    /// To a set of their own.
    Separate(&'a mut ParameterGrads),
    /// To the parameters, as the first of two passes at once.
    First(&'a GradOrder, IsShared<'a>),
    /// To the parameters, each after the first of two passes; of those that take several gradients in a pass to a set of their
    /// own, which the caller adds after both.
    Second(&'a GradOrder, IsShared<'a>, &'a mut ParameterGrads),
}

/// Whether a parameter takes several gradients in a pass, as tied embeddings do.
pub type IsShared<'a> = &'a (dyn Fn(&Parameter) -> bool + Sync);

impl GradTarget<'_> {
    /// The same for a pass within this one.
    fn within(&mut self) -> GradTarget<'_> {
        match self {
            GradTarget::Parameters => GradTarget::Parameters,
            GradTarget::Separate(apart) => GradTarget::Separate(apart),
            GradTarget::First(lead, several) => GradTarget::First(lead, several),
            GradTarget::Second(lead, several, apart) => GradTarget::Second(lead, several, apart),
        }
    }

    /// The set that takes the gradient of `parameter`, if not the parameter itself, which may be waited for.
    fn apart(&mut self, parameter: &Arc<Parameter>) -> Option<&mut ParameterGrads> {
        match self {
            GradTarget::Parameters | GradTarget::First(..) => None,
            GradTarget::Separate(apart) => Some(apart),
            GradTarget::Second(_, several, apart) if several(parameter) => Some(apart),
            GradTarget::Second(lead, ..) => {
                lead.wait(parameter);
                None
            }
        }
    }

    /// The gradient of `parameter` has been added.
    fn added(&self, parameter: &Arc<Parameter>) -> Result<()> {
        match self {
            GradTarget::First(lead, several) if !several(parameter) => lead.done(parameter),
            _ => Ok(()),
        }
    }
}

impl Grads<'_> {
    /// Add `grad` to the gradient of `node` (a constant's is dropped). `grad` must not be in use elsewhere.
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
    /// already: if not, it must overwrite every one of them.
    pub fn accumulate(&mut self, parameter: &Arc<Parameter>, kernel: impl FnOnce(&mut [f32], bool)) -> Result<()> {
        let Some(apart) = self.sink.apart(parameter) else {
            parameter.accumulate(kernel)?;
            return self.sink.added(parameter);
        };
        match apart.0.entry(address(parameter)) {
            Entry::Occupied(sum) => slice::mutate(sum.get(), |data| kernel(data, true)),
            Entry::Vacant(place) => {
                let shape = parameter.var.shape().clone();
                let mut data = vec![0.0; shape.elem_count()];
                kernel(&mut data, false);
                place.insert(slice::from_vec(data, shape)?);
                Ok(())
            }
        }
    }

    /// Add `grad` to the gradient of `parameter`. It must not be in use elsewhere.
    pub fn add_to(&mut self, parameter: &Arc<Parameter>, grad: Tensor) -> Result<()> {
        let Some(apart) = self.sink.apart(parameter) else {
            parameter.add_grad(grad)?;
            return self.sink.added(parameter);
        };
        let sum = match apart.0.remove(&address(parameter)) {
            Some(sum) => (sum + grad)?,
            None => grad,
        };
        apart.0.insert(address(parameter), sum);
        Ok(())
    }

    /// Put a gradient (back) in its place.
    pub fn put(&mut self, node: Option<usize>, grad: Tensor) {
        if let Some(n) = node {
            self.slots[n] = Some(grad);
        }
    }
}

const CHUNK: usize = 1 << 14;

fn on_cpu_f32(tensor: &Tensor) -> bool {
    matches!(tensor.device(), Device::Cpu) && tensor.dtype() == DType::F32
}

/// Records ops when gradients are wanted.
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

    /// A tape that only computes.
    pub fn no_grad() -> Self {
        Tape { nodes: RefCell::default(), recording: false, fused: true, dropout: None }
    }

    /// The same tape without fused kernels: what devices other than the CPU use.
    pub fn reference(mut self) -> Self {
        self.fused = false;
        self
    }

    /// The same tape with dropout drawn from `seed`; `None` for none.
    pub fn with_dropout(mut self, seed: Option<u64>) -> Self {
        self.dropout = seed;
        self
    }

    /// The seed of the pass's dropout.
    pub fn dropout_seed(&self) -> Option<u64> {
        self.dropout
    }

    /// Whether gradients are wanted at all.
    pub fn recording(&self) -> bool {
        self.recording
    }

    /// Whether `tensor` is to be processed by fused CPU kernels.
    pub fn is_fused(&self, tensor: &Tensor) -> bool {
        self.fused && on_cpu_f32(tensor)
    }

    /// Whether a weight is to be processed by fused CPU kernels, which read f32 and bf16.
    pub fn is_fused_weight(&self, weight: &Parameter) -> bool {
        let tensor = weight.compute_var().as_tensor();
        self.fused && matches!(tensor.device(), Device::Cpu) && matches!(tensor.dtype(), DType::F32 | DType::BF16)
    }

    /// A leaf whose gradient can be asked for after [`Tape::backward_with_leaves`].
    pub fn leaf(&self, tensor: Tensor) -> Value {
        if !self.recording {
            return Value::constant(tensor);
        }
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(None);
        Value { tensor, node: Some(nodes.len() - 1), again: None }
    }

    /// Record an op's result. `backward` gets the gradient of `tensor`.
    /// With `wanted` false (no input or parameter takes a gradient) the result is a constant.
    pub fn record(
        &self,
        tensor: Tensor,
        wanted: bool,
        backward: impl FnOnce(Tensor, &mut Grads<'_>) -> Result<()> + 'static,
    ) -> Value {
        if !(self.recording && wanted) {
            return Value::constant(tensor);
        }
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Some(Box::new(backward)));
        Value { tensor, node: Some(nodes.len() - 1), again: None }
    }

    /// `f` of `x`, of which nothing is kept but `x`: the backward pass computes `f` again. `trains` says whether a parameter
    /// that `f` uses takes a gradient.
    pub fn gradient_checkpoint(
        &self,
        x: &Value,
        trains: bool,
        f: impl Fn(&Tape, Value) -> Result<Value> + 'static,
    ) -> Result<Value> {
        let (node, fused, dropout) = (x.node, self.fused, self.dropout);
        let tape = move |recording| Tape { nodes: RefCell::default(), recording, fused, dropout };
        let y = f(&tape(false), Value::constant(x.tensor.clone()))?;
        let x_tensor = x.tensor.clone();
        Ok(self.record(y.tensor, trains || x.requires_grad(), move |grad, grads| {
            let again = tape(true);
            let leaf = match node {
                Some(_) => again.leaf(x_tensor),
                None => Value::constant(x_tensor),
            };
            let y = f(&again, leaf.clone())?;
            match again.replay(vec![(y, grad)], &[&leaf], grads.sink.within())?.pop().flatten() {
                Some(dx) => grads.add(node, dx),
                None => Ok(()),
            }
        }))
    }

    /// An op of one input given as a composition of candle ops, differentiated by candle's autograd: for ops so small that it costs nothing.
    /// `f` must use only ops whose candle backward is right.
    pub fn candle_op(&self, x: &Value, f: impl Fn(&Tensor) -> candle_core::Result<Tensor> + 'static) -> Result<Value> {
        let (input, node) = (x.tensor.detach(), x.node);
        let y = f(&input)?.detach();
        Ok(self.record(y, x.requires_grad(), move |grad, grads| {
            let input = Var::from_tensor(&input)?;
            // Backwards from every element of the product: candle starts from ones, which is the gradient of their sum.
            let store = (f(input.as_tensor())? * grad.detach())?.backward()?;
            match store.get(&input) {
                Some(g) => grads.add(node, g.detach().copy()?),
                None => Ok(()),
            }
        }))
    }

    /// Replay backwards from the given (value, gradient) pairs, adding to the gradients of the parameters.
    pub fn backward(self, seeds: Vec<(Value, Tensor)>) -> Result<()> {
        self.backward_to(seeds, GradTarget::Parameters)
    }

    /// As [`Tape::backward`], with the gradients of parameters going to `sink`.
    pub fn backward_to(self, seeds: Vec<(Value, Tensor)>, sink: GradTarget<'_>) -> Result<()> {
        self.replay(seeds, &[], sink).map(|_| ())
    }

    /// As [`Tape::backward`], returning also the gradients of the given leaves (`None` where none arrived).
    pub fn backward_with_leaves(self, seeds: Vec<(Value, Tensor)>, leaves: &[&Value]) -> Result<Vec<Option<Tensor>>> {
        self.replay(seeds, leaves, GradTarget::Parameters)
    }

    fn replay(
        self,
        seeds: Vec<(Value, Tensor)>,
        leaves: &[&Value],
        sink: GradTarget<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let mut nodes = self.nodes.into_inner();
        let mut grads = Grads { slots: (0..nodes.len()).map(|_| None).collect(), sink };
        for (value, grad) in seeds {
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
