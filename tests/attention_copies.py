"""Find softmax attention in source text, for the law that it is written once.

Follows values through each function: a product of two activations (einsum, matmul, …) under a softmax, or
a softmax of any product that is multiplied with activations again. A classifier's softmax, which
multiplies nothing, and a learned mix of layers, which comes of no product, are neither.
"""

import ast
import collections

PRODUCTS = {"einsum", "matmul", "dot", "vdot", "tensordot", "dot_general", "inner"}
SOFTMAX = {"softmax", "exp"}
READY_MADE = {"dot_product_attention", "dot_product_attention_weights"}
READY_MADE |= {"MultiHeadAttention", "MultiHeadDotProductAttention", "SelfAttention"}
SIZES = {"shape", "dtype", "ndim", "size"}

# What a value can be. Activations come of arguments, not of `self.param` or constants alone.
ACTIVE, PRODUCT, SCORES, WEIGHTS = "activation", "product", "product of activations", "softmax"


def copies(source: str) -> list[int]:
    """Return the lines of a file where attention is computed."""
    return _Reader(ast.parse(source)).lines


class _Reader:
    def __init__(self, tree):
        self.functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        self.returned = collections.defaultdict(set)
        self.found = set()
        before = -1
        while before != (known := sum(map(len, self.returned.values()))):
            before = known
            self.block(tree.body, {})

    @property
    def lines(self):
        return sorted(self.found)

    def block(self, body, values, function=None):
        """Read statements twice: a loop may use what it sets later."""
        for node in [*body, *body]:
            if isinstance(node, ast.ClassDef):
                self.block(node.body, dict(values))
            elif isinstance(node, ast.FunctionDef):
                self.block(node.body, values | self.arguments(node.args), node.name)
            elif isinstance(node, ast.Return) and node.value is not None:
                self.returned[function] |= self.kinds(node.value, values)
            elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)) and node.value:
                for target in getattr(node, "targets", [getattr(node, "target", None)]):
                    self.bind(target, node.value, values, add=isinstance(node, ast.AugAssign))
            else:
                if isinstance(node, ast.For):
                    self.bind(node.target, node.iter, values)
                for part in ast.iter_child_nodes(node):
                    if isinstance(part, ast.expr):
                        self.kinds(part, values)
                for name in ("body", "orelse", "finalbody"):
                    self.block(getattr(node, name, []), values, function)

    def arguments(self, given):
        every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        return {a.arg: {ACTIVE} for a in every if a and a.arg not in ("self", "cls")}

    def bind(self, target, value, values, add=False):
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            if len(target.elts) == len(value.elts):
                for one, other in zip(target.elts, value.elts, strict=True):
                    self.bind(one, other, values)
                return
        kinds = self.kinds(value, values)
        for name in ast.walk(target):
            if isinstance(name, ast.Name):
                values[name.id] = kinds | (values.get(name.id, set()) if add else set())

    def kinds(self, node, values):
        """Return what an expression's value is made of."""
        match node:
            case ast.Name():
                if node.id in READY_MADE:
                    self.found.add(node.lineno)
                return set(values.get(node.id, ()))
            case ast.Attribute():
                if node.attr in READY_MADE:
                    self.found.add(node.lineno)
                return set() if node.attr in SIZES else self.kinds(node.value, values)
            case ast.BinOp(op=ast.MatMult()):
                return self.product(node, [node.left, node.right], values)
            case ast.Call():
                return self.call(node, values)
            case ast.Lambda():
                return self.kinds(node.body, values | self.arguments(node.args))
            case ast.ListComp() | ast.GeneratorExp() | ast.SetComp() | ast.DictComp():
                values = dict(values)
                for part in node.generators:
                    self.bind(part.target, part.iter, values)
            case ast.NamedExpr():
                self.bind(node.target, node.value, values)
        parts = [p for p in ast.iter_child_nodes(node) if isinstance(p, (ast.expr, ast.keyword))]
        return set().union(*(self.kinds(part, values) for part in parts))

    def call(self, node, values):
        name = getattr(node.func, "attr", getattr(node.func, "id", None))
        if name == "param":
            return set()
        if name in PRODUCTS:
            return self.product(node, node.args, values)
        given = [*node.args, *(k.value for k in node.keywords)]
        kinds = set().union(*(self.kinds(part, values) for part in given))
        if name in SOFTMAX:
            if SCORES in kinds:
                self.found.add(node.lineno)
            return kinds - {PRODUCT, SCORES} | ({WEIGHTS} if PRODUCT in kinds else set())
        kinds |= self.kinds(node.func, values)
        if name in self.functions:
            return kinds | self.returned[name]
        # A learned map, Dense(…)(x), begins anew.
        return kinds & {ACTIVE} if name in (None, "apply") else kinds

    def product(self, node, operands, values):
        operands = [self.kinds(part, values) for part in operands for _ in _times(part)]
        active = sum(ACTIVE in kinds for kinds in operands)
        if any(WEIGHTS in kinds for kinds in operands):
            if active > 1:
                self.found.add(node.lineno)
            return {ACTIVE}
        return ({ACTIVE} if active else set()) | {PRODUCT} | ({SCORES} if active > 1 else set())


def _times(operand):
    """einsum's *(q, k) are two operands."""
    return range(2 if isinstance(operand, ast.Starred) else 1)
