"""A method of your own in 40 lines: the uniform distribution for what is forgotten, labels for the rest."""

from dataclasses import dataclass

from torch.nn import functional as F

from pymixunlearn import data, evaluation, methods, models, tasks, training


@dataclass(frozen=True)
class UniformConfig(methods.LoopConfig):
    epochs: int = methods.setting(10, "passes over the retain set", low=1)
    lr: float = methods.setting(1e-3, "learning rate (Adam)", above=0)


@methods.method("uniform", summary="the uniform distribution for the forgotten data, labels for the rest")
class Uniform(methods.Loop[UniformConfig]):
    config_class = UniformConfig
    epoch_of = "cycled"  # once through D_r, with D_f beside it again and again

    def setup(self):
        self.optimizer = self.add_optimizer("adam", self.config.lr)

    def step(self, forget, retain):
        loss_f = -F.log_softmax(self.model(forget.images), 1).mean()  # KL(uniform || f(x_f)) + a constant
        loss_r = methods.cross_entropy(self.model(retain.images), retain)
        methods.descend(self.optimizer, loss_f + loss_r)
        return {"forget": loss_f, "retain": loss_r}


if __name__ == "__main__":
    split = tasks.class_split(data.load("digits"), [0])
    initial = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
    config, device = training.TrainConfig(epochs=5), training.resolve_device("cpu")
    training.train(initial, split.train, split.preprocess, config, device=device)
    unlearned = methods.get("uniform")(epochs=5).unlearn(initial, split, device="cpu").model
    for name, model in (("initial", initial), ("unlearned", unlearned)):
        metrics = evaluation.evaluate(model, split, device="cpu")
        print(f"{name:9} test_r {metrics['test_r']:6.2f} %  test_f {metrics['test_f']:6.2f} %")
