"""Homograph pairs: one text, two readings, different entities; only the audio tells which.

南京市长江大桥 read 南京市|长江大桥 is two places, read 南京|市长|江大桥 a place and a person.
There are two kinds:

* `pronounced`: a character is also said differently (长 cháng or zhǎng, 查 chá or the surname Zhā);
* `paused`: only where the speaker pauses differs (南京|大学生活动, 南京大学|生活动).

Everything is combined from the lists below. Each entry belongs to training or to development once
and for all, so no city, name, noun or carrier sentence of development occurs in training, whatever
the seed. Annotation follows CNERTA: 某某市 is one place without an inner one, an organisation or a
road holds the place in its name (上海大学 holds 上海), a place before a place stands beside it.

Readings are written as words: a space divides words said in one breath, `/` marks where a pause is
possible and `|` where the reading needs its boundary; `|180` fixes that pause, in ms. `词(ci2)`
gives a word's pronunciation; without it pypinyin's phrase dictionary does.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from pypinyin import Style, lazy_pinyin

from cnerta.models.errors import DataError
from cnerta.models.runtime.labels import Span

__all__ = [
    "Break",
    "HomographPair",
    "Kind",
    "Reading",
    "Split",
    "Word",
    "homograph_pairs",
    "read_words",
]

Split = Literal["train", "dev"]
Kind = Literal["pronounced", "paused"]
Break = Literal["none", "optional", "decisive"]

T = TypeVar("T")

# Chosen so that every list below has entries on both sides; a test holds it to that.
_SALT = "51768"


@dataclass(frozen=True, slots=True)
class Word:
    """A word as said.

    Attributes:
        text: Its characters.
        pinyin: One reading a character, tone as a digit, 5 for neutral.
        following: Whether a pause after it is out of place, possible, or what makes the reading.
        pause_ms: Length of that pause where the notation gives one; else it is drawn.
    """

    text: str
    pinyin: tuple[str, ...]
    following: Break = "none"
    pause_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read the text.

    Attributes:
        words: The whole sentence.
        entities: Nested gold, sorted; offsets are characters of the sentence.
    """

    words: tuple[Word, ...]
    entities: tuple[Span, ...]

    @property
    def text(self) -> str:
        """The characters, joined."""
        return "".join(word.text for word in self.words)

    @property
    def readings(self) -> tuple[str, ...]:
        """Pinyin of every character."""
        return tuple(pinyin for word in self.words for pinyin in word.pinyin)


@dataclass(frozen=True, slots=True)
class HomographPair:
    """A text with two readings.

    Attributes:
        identifier: Stable name, unique within a split.
        family: Which construction made it.
        kind: Whether pronunciation or only pauses differ.
        split: The split its names and its carrier belong to.
        names: The name-like parts used; those of the two splits are disjoint.
        carrier: The sentence around it, with `{}`.
        first: One reading.
        second: The other.
    """

    identifier: str
    family: str
    kind: Kind
    split: Split
    names: tuple[str, ...]
    carrier: str
    first: Reading
    second: Reading

    @property
    def text(self) -> str:
        """The text both readings share."""
        return self.first.text


@dataclass(frozen=True, slots=True)
class _Phrase:
    """The ambiguous part: two marked readings and, for each, its entities as (surface, label)."""

    family: str
    kind: Kind
    names: tuple[str, ...]
    first: str
    first_entities: tuple[tuple[str, str], ...]
    second: str
    second_entities: tuple[tuple[str, str], ...]


def _listed(text: str, separator: str | None = None) -> tuple[str, ...]:
    """The lists below are written as lines of words, to be readable."""
    return tuple(text.split(separator))


_WORD = re.compile(
    r"(?P<text>[\u3400-\u9fff]+)(?:\((?P<pinyin>[a-zü0-9 ]+)\))?(?P<mark>[ /|]*)(?P<pause>[0-9]*) *"
)


def _looked_up(text: str) -> tuple[str, ...]:
    return tuple(lazy_pinyin(text, style=Style.TONE3, neutral_tone_with_five=True))


def read_words(marked: str) -> tuple[Word, ...]:
    """Parses the notation described in this module's docstring.

    Raises:
        DataError: Something that is neither a character, a reading nor a mark.
    """
    words: list[Word] = []
    position = 0
    while position < len(marked):
        match = _WORD.match(marked, position)
        if match is None:
            raise DataError(f"expected a Chinese word at {marked[position:]!r} of {marked!r}")
        text, mark = match["text"], match["mark"]
        pinyin = tuple(match["pinyin"].split()) if match["pinyin"] else _looked_up(text)
        if len(pinyin) != len(text):
            raise DataError(f"expected {len(text)} syllables for {text!r}, got {' '.join(pinyin)}")
        following: Break = "decisive" if "|" in mark else "optional" if "/" in mark else "none"
        pause = float(match["pause"]) if match["pause"] else None
        words.append(Word(text, pinyin, following, pause))
        position = match.end()
    return tuple(words)


# ---------------------------------------------------------------------------------------- material
# Which split an entry belongs to follows from its characters alone (`_split_of`), so the same word
# is on the same side in every list.

# 长沙, 长春 and the like are left out: they put a second 长 beside the decisive one.
_CITIES = _listed(
    """
    南京 武汉 重庆 广州 杭州 苏州 无锡 成都 九江 安庆 芜湖 郑州 宜昌 黄石 岳阳 西安 镇江 扬州 南通
    济南 泰州 合肥 南昌 贵阳 铜陵 泸州 宜宾 昆明 荆州 鄂州 黄冈 太原 常州 绍兴 宁波 大连 嘉兴 温州
    厦门 沈阳 泉州 福州 青岛 兰州 烟台 威海 洛阳 银川 开封 徐州 桂林 石家庄 柳州 南宁 深圳 西宁
    珠海 东莞 佛山 海口 唐山 保定 邯郸 大同 吉林 丹东 锦州 哈尔滨 赣州 遵义 绵阳 包头 天津 上海
    淮安 盐城 宿迁 淮南 蚌埠 宣城 滁州 阜阳 舟山 台州 金华 丽水 湖州 漳州 南平 宁德 上饶 景德镇
    鹰潭 抚州 潍坊 济宁 泰安 德州 聊城 菏泽 平顶山 鹤壁 许昌 漯河 商丘 信阳 周口 驻马店 十堰 襄阳
    荆门 孝感 咸宁 株洲 湘潭 衡阳 邵阳 常德 张家界 益阳 永州 韶关 茂名 肇庆 惠州 梅州 阳江 揭阳
    梧州 北海 钦州 贵港 百色 贺州 来宾 三亚 攀枝花 广元 遂宁 内江 乐山 南充 眉山 达州 雅安 曲靖
    玉溪 保山 丽江 拉萨 铜川 宝鸡 渭南 汉中 榆林 安康 商洛 武威 张掖 酒泉 乌鲁木齐 赤峰 通辽 邢台
    张家口 承德 沧州 廊坊 衡水 阳泉 朔州 运城 忻州 鞍山 抚顺 营口 阜新 盘锦 铁岭 葫芦岛 松原
    齐齐哈尔 大庆 伊春 佳木斯 牡丹江 绥化
    """
)
_PROVINCES = _listed(
    """
    吉林 江苏 浙江 辽宁 安徽 福建 江西 黑龙江 河南 湖北 湖南 山东 广东 四川 贵州 陕西 云南 甘肃
    青海 山西 河北 海南
    """
)
_COUNTIES = _listed(
    """
    兴国 太和 永丰 安远 望江 怀宁 桐庐 德清 海盐 定远 金寨 霍山 清流 大余 宁都 上犹 信丰 巫山 云阳
    石柱 富顺 泸定 宜丰 遂川 万安 会昌 于都 崇义 全南 寻乌 上高 奉新 铜鼓 庐江 肥西 肥东 繁昌 南陵
    绩溪 旌德 祁门 石台 东至 枞阳 岳西 涡阳 利辛 颍上 凤台 霍邱 舒城 来安 全椒 新昌 淳安 浦江 磐安
    开化 常山 青田 缙云 松阳 云和 仙居
    """
)
_DISTRICTS = _listed(
    """
    鼓楼 海淀 天河 越秀 江岸 武昌 浦东 宝山 江宁 雨花 徐汇 南山 宝安 锦江 武侯 雁塔 碑林 历下 市中
    拱墅 滨江 秦淮 建邺 栖霞 六合 溧水 高淳 静安 普陀 虹口 杨浦 闵行 嘉定 青浦 奉贤 石景山 房山
    顺义 昌平 大兴 怀柔 平谷 密云 荔湾 番禺 花都 增城 福田 盐田 汉阳 东西湖 青羊 成华 新都 双流
    郫都 莲湖 灞桥 阎良 临潼 高陵 崂山 城阳 上城 萧山 余杭
    """
)

# (after 长, a place by itself): 长江 and 江, 长安 and 安: the second character is a surname.
# Left out is what dictionaries list as a place though few would see one in it, or the reverse:
# 长龙, 长水.
_CHANG = (
    ("江", True), ("乐", True), ("安", True), ("宁", True),
    ("沙", True), ("丰", True), ("阳", True), ("林", False),
    ("海", True), ("平", True), ("康", False), ("寿", True),
    ("青", False), ("向", False), ("武", True), ("荣", False),
    ("葛", True), ("云", False), ("明", False), ("岭", True),
    ("兴", True), ("治", True), ("泰", True), ("顺", True),
    ("垣", True), ("清", True), ("洲", True), ("岛", True),
    ("城", True), ("虹", False), ("新", False), ("福", False),
    ("辉", False), ("风", False), ("智", False), ("源", False),
    ("通", False), ("星", False), ("柳", False), ("发", False),
    ("裕", False), ("征", False), ("塘", False), ("溪", False),
    ("竹", False), ("益", False), ("信", False), ("德", False),
    ("美", False), ("永", False), ("旺", False), ("昌", False),
    ("利", False),
)  # fmt: skip
# How these surnames are read as surnames and inside the place name, where pypinyin would not know.
_SURNAME_READINGS = {"乐": "yue4", "葛": "ge3"}
_PLACE_READINGS = {"乐": "le4", "葛": "ge3"}
# Names the phrase dictionary reads wrongly.
_NAME_READINGS = {"宁都": "ning2 du1", "曾": "zeng1"}
# What may end a place and also be a given name.
_TAILS = _listed(
    """
    大桥 路 公园 河 北路 东路 山 湖 新村 大道 南路 小桥 江 村 中路 二桥 西湖 花园 古镇 桥 西路 岭
    三桥 海 大街 水库 东街 西街 湾 岛 坡 港 码头 老街 步行街 植物园 森林公园 峡谷 隧道 东湖 南湖
    北湖 铁桥 石桥 一路 二路 南街 北街 西山 东山 铁路 运河 半岛 农场 林场 新城 寺 古城
    """
)
# What an area is called, and the areas called so; cities twice, they are the commonest.
_OFFICES = (
    ("市", _CITIES),
    ("省", _PROVINCES),
    ("区", _DISTRICTS),
    ("县", _COUNTIES),
    ("市", _CITIES),
)
_TEAMS = _listed(
    """
    中国 日本 韩国 巴西 德国 法国 意大利 荷兰 英国 美国 俄罗斯 泰国 瑞典 瑞士 挪威 丹麦 芬兰 波兰
    西班牙 希腊 土耳其 伊朗 伊拉克 印度 越南 朝鲜 缅甸 老挝 埃及 南非 阿根廷 古巴 墨西哥 新西兰
    乌克兰 捷克 匈牙利 上海 天津 广东 山东 辽宁 江苏
    """
)
_FACTORIES = _listed(
    """
    化肥 造船 机床 纺织 玻璃 水泥 轴承 电缆 农药 啤酒 灯泡 卷烟 制药 食品 服装 家具 水泵 阀门 仪表
    肥皂 自行车 锅炉 搪瓷 火柴 酱油 钢琴 陶瓷 轮胎
    """
)
_SCHOOLS = _listed(
    """
    体 农 艺 商 警 技 党 干 卫 戏 航 舞 师 医 工 军 美 林 水 武 聋 盲
    """
)
# (what it is, how that is said, its label, whose it is, which kinds there are)
_CHIEFS: tuple[tuple[str, str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("队", "dui4", "ORG", _TEAMS, ()),
    ("站", "zhan4", "LOC", _CITIES, ()),
    ("厂", "chang3", "ORG", _CITIES, _FACTORIES),
    ("校", "xiao4", "ORG", _CITIES, _SCHOOLS),
)

# (a verb that is also a surname, the verb's pronunciation, the surname's, objects that are also
# given names)
_NAMED_VERBS = (
    (
        "曾",
        "ceng2",
        "zeng1",
        "建桥 修路 造林 远航 立功 开山 办学 庆生 建业 拓荒 治沙 筑城 参军 抗洪 救人 登山 迎春 "
        "植树 获奖 夺冠 建校 建厂 建塔 护林 开矿 养鱼 种树 画虎",
    ),
    (
        "查",
        "cha2",
        "zha1",
        "明 清 实 封 核 税 账 档 酒驾 真伪 漏 水源 案 房 验 处 办 获 证 水表 病因 线索",
    ),
    ("解", "jie3", "xie4", "放 冻 围 困 密 禁 忧 难 燃眉 封 题 毒 说 读 析 答 除 决 剖 开 放军"),
    (
        "盖",
        "gai4",
        "ge3",
        "新楼 高楼 学堂 大桥 新房 古城 凉亭 钟楼 农庄 小楼 粮仓 花房 楼 房 桥 新屋 小屋 校舍 "
        "新居 木屋",
    ),
    ("应", "ying4", "ying1", "战 征 聘 邀 诉 考 变 急 答 援 训 募 用 试 时 景 声 酬 验 诺"),
    (
        "任",
        "ren4",
        "ren2",
        "教 职 课 免 用 期 务 命 满 重道远 选 事 意 性 重 教官 期满 他 人 班长 院长 总管",
    ),
    ("种", "zhong4", "chong2", "树 花 菜 瓜 豆 竹 麦 薯 草"),
    ("过", "guo4", "guo1", "江 河 年 节 海 冬 桥 关 山 境 夜"),
    ("召", "zhao4", "shao4", "开 集 回 见 唤"),
    ("占", "zhan4", "zhan1", "线 先 领 地 位"),
    ("纪", "ji4", "ji3", "念 实 录 年"),
    ("折", "zhe2", "she2", "返 价 扣 叠"),
    ("洗", "xi3", "xian3", "车 脸 钱 尘"),
)

_TOPICS_UNIVERSITY = _listed(
    """
    活动 创业 社团 代表 运动会 艺术节 辩论赛 公寓 记者 球队 歌手 合唱团 就业 论坛 志愿者 诗会 画展
    车队 剧团 棋手 公益 食堂 毕业 竞赛 交流 报告会 联谊 演讲 舞会 话剧 电影节 文化节 读书会 英语
    作品 作文 书画 摄影 实习 贷款 医保 联合会 代表团 演唱会 晚会 聚会 调查 问卷 家长 兼职 夏令营
    登山 导师 旅行 采访 日记 服装 杂志 频道 电台 广播 合作社 体检 心理
    """
)
# (after 某某大学生: a topic that also reads 生物, 生活, ... ) as (大学|..., 大学生|...)
_TOPICS_OVERLAP = (
    ("生物 理论 文集", "物理 论文集"),
    ("生活 动力 报告", "活动力 报告"),
    ("生物 理学 会", "物理 学会"),
    ("生活 动画 展", "活动 画展"),
)
_LEVELS = _listed("大学 中学 小学 大学")

_STATES = _listed(
    """
    中国 韩国 德国 法国 泰国 日本 英国 美国 瑞典 瑞士 挪威 丹麦 芬兰 波兰 西班牙 印度 越南 朝鲜
    缅甸 埃及 南非 巴西 古巴 荷兰 伊朗 意大利
    """
)
# Industries whose name with a place before it is also a company, and what either may have.
_INDUSTRIES = _listed(
    """
    移动 石油 电信 银行 铁路 邮政 航空 证券 黄金 保险 汽车 钢铁 啤酒 电力 石化 机场 地铁 港口 烟草
    电影 建筑 燃气 医药 电气 食品 纺织 服装 玻璃 粮食 船舶 电器 家电 家具 电子 通讯 软件 传媒 影视
    动漫 旅游 酒店 航运 海运 水务 热力 核电 风电 水电 橡胶 造纸 制药 农药 种业 乳业 粮油 牧业 渔业
    农业 园林 地产 建材 信托 重工 机床 轴承 仪表 电缆 半导体 芯片 航天 联通 茶叶 白酒 水产 客车
    自行车 高铁 铝业 盐业 矿业 天然气 自来水 环保 出版 电视 足球
    """
)
_ASSETS = _listed(
    """
    业务 价格 市场 行情 产量 销量 设备 网络 技术 利润 股票 工人 历史 广告 工程 项目 产品 数据 标准
    人才 生意 股份 规模 基地 品牌 质量 排名 合同 订单 客户 用户 出口 进口 收入 投资 股价 消费 资产
    服务 计划 展会 改革 效率 价值 信息 需求 供应 合作 人员 资金 专利 设计 经验 趋势 事故 纠纷 文化
    危机 债务 样品 门店 车队
    """
)
# After 民: 民办|学校 is one word and its noun, 市民|办学校 what citizens do.
_CITIZEN_DEEDS = _listed(
    "办 学校,间 借贷,用 机场,办 医院,间 交流,办 学堂,间 往来,办 大学,用 码头,间 组织,办 剧团,"
    "办 养老院,间 艺术,用 飞机,办 报纸,办 诊所",
    ",",
)
_SITES = _listed(
    """
    广场 机场 大桥 车站 码头 公园 大厦 体育馆 博物馆 图书馆 医院 银行 饭店 剧院 动物园 电视台 影院
    大剧院 音乐厅 美术馆 科技馆 展览馆 体育场 体育中心 游乐园 植物园 海洋馆 书店 书城 商场 商城
    火车站 汽车站 高铁站 港口 电视塔 城墙 教堂 宾馆 酒店 学院 法院 海关 邮局 电台 日报 晚报 研究院
    画院 话剧团 歌舞团 交响乐团 足球队 商会 钢厂 电厂 水库 隧道
    """
)
_SITE_LABELS = dict.fromkeys(
    _listed(
        "医院 银行 饭店 电视台 大剧院 书店 商场 商城 宾馆 酒店 学院 法院 海关 邮局 电台 日报 "
        "晚报 研究院"
        "画院 话剧团 歌舞团 交响乐团 足球队 商会 钢厂 电厂 影院"
    ),
    "ORG",
)
_PEOPLES_LABELS = dict.fromkeys(
    _listed(
        "公园 广场 大桥 会堂 会场 体育场 体育馆 东路 西路 北路 大街 商场 大道 桥 礼堂 大礼堂 博物馆"
    ),
    "LOC",
)
_PEOPLES = _listed(
    """
    银行 医院 公园 广场 政府 剧院 法院 大桥 日报 会堂 电台 出版社 检察院 广播 出版 会场 电影院
    体育场 体育馆 画报 图书馆 东路 西路 北路 大街 商场 大道 桥 晚报 礼堂 大礼堂 博物馆
    """
)
_ROADS = _listed(
    """
    东路 西路 南路 北路 中路 大道 大街 东街 西街 新村 老街 环路 一路 二路 三路 四路 东大街 西大街
    南大街 北大街 南街 北街 中街 小路 高架 隧道 步行街 新街 新路 后街 前街 东大道 西大道 北大道
    公路
    """
)

_SURNAMES = _listed(
    """
    王 李 张 刘 陈 杨 赵 黄 周 吴 徐 孙 马 胡 郭 何 高 罗 郑 梁 谢 宋 唐 许 韩 冯 邓 曹 彭 曾 萧
    田 董 袁 潘 于 蒋 蔡 余 杜 沈 姜 范 廖 邹 熊 陆 郝 孔 崔 康 秦 江 邵 孟 龙 雷 钱 汤 黎 易 武
    贺 庞 施 陶 洪 颜 严 牛 章 鲁 伍 韦 申 毕 焦 柳 辛 谷 祁 耿 苗 童 欧 项 阮
    """
)
_GIVEN_FIRST = _listed(
    """
    立 志 建 小 晓 永 文 国 海 春 俊 德 家 少 玉 景 学 振 书 云 天 洪 光 宗 世 正 嘉 浩 宇 梓 思
    诗 淑 庆 耀 荣 兴 广 伟 卫 宝 秋 冬 星 启 克 继 绍 怀 汉 鸿 锦 静 如 梦 芳 瑞 福 智 信 忠 孝
    """
)
# (second given character, nouns that start with it and lose it): 立新|书, 立|新书
_GIVEN_NOUNS = (
    ("新", "书 车 歌 家 房 店 画"), ("国", "画 歌 旗 酒 宝 学"), ("红", "旗 茶 花 酒 毯 包"),
    ("金", "牌 店 表 杯 像 库"), ("龙", "舟 灯 虾 船"), ("军", "车 舰 歌 马 港"),
    ("山", "歌 路 村 茶 花 洞"), ("花", "店 茶 车 园 船"), ("春", "联 茶 景 装"),
    ("石", "桥 碑 像 屋 刻"), ("高", "楼 铁 山 塔"), ("平", "房 台 楼 原"),
    ("文", "章 集 稿 件"), ("海", "景 港 船 岛 图"), ("名", "画 车 表 作"),
    ("云", "海 图 梯 彩"), ("木", "桥 屋 船 雕"), ("白", "马 酒 船 鞋"),
    ("玉", "器 镯 石 雕"), ("明", "珠 星 灯 信"),
)  # fmt: skip
# (after 和, a place by itself): 和田 and 田. Said alike in both readings: the pause alone decides.
_HE_PLACES = (
    ("平", False), ("田", True), ("龙", True), ("安", False),
    ("顺", True), ("丰", False), ("林", False), ("康", False),
    ("静", True), ("政", True), ("美", False), ("兴", False),
    ("泰", False), ("信", False), ("义", False), ("庆", False),
    ("源", False), ("昌", False), ("通", False), ("瑞", False),
)  # fmt: skip

# Sentences in which both readings make sense. {} is a noun phrase, person or place or thing.
_CARRIERS = _listed(
    """记者 看到了/{}
{}/引起了 大家的 关注
节目里 介绍了/{}
昨天的 新闻/提到了/{}
很多人 都 知道/{}
{}/又 上了 头条
这张 照片 拍的是/{}
网友们 正在 议论/{}
大家 都 在 谈论/{}
他 一直 关心/{}
{}/成了 热门 话题
文章 写到了/{}
我们 第一次 见到/{}
镜头里 出现了/{}
{}/最近 很受 欢迎
今天 我们 来 说说/{}
这份 报告 提到/{}
{}/给 游客 留下了 深刻的 印象
请 大家 看看/{}
他们 专门 拍摄了/{}
我 还是 头一次 听说/{}
{}/这几年 变化 很大
据 媒体 报道/{}/受到 好评
有关 部门 表扬了/{}
主持人 提起了/{}
{}/登上了 杂志 封面
老百姓 都 夸奖/{}
这部 电影 讲的是/{}
他 在 信里 写到/{}
{}/出现在 宣传片里
当地人 经常 提起/{}
这个 故事/与/{}/有关""",
    "\n",
)
# Carriers for the families whose two readings are an action and a person.
_NEWS_CARRIERS = _listed(
    """{}/的 消息 传开了
大家 都 听说了/{}/的 事
关于/{}/的 报道 很多
今天 播出了/{}/的 新闻
{}/的 经过/还 不 清楚
他 讲了/{}/的 故事
这本 书 写的是/{}/的 事
{}/的 情况/引起了 关注
报纸 登了/{}/的 文章
网上 流传着/{}/的 视频
{}/的 历史 很 少有人 知道
记者 问起了/{}/的 情况""",
    "\n",
)


def _split_of(value: object) -> Split:
    """The side an entry is on: about a quarter is development, by a checksum of its text."""
    text = value if isinstance(value, str) else str(value)
    digest = hashlib.blake2b(f"{_SALT}{text}".encode(), digest_size=4).digest()
    return "dev" if int.from_bytes(digest, "big") % 4 == 0 else "train"


def _share(values: Sequence[T], split: Split) -> tuple[T, ...]:
    """The part of a list that belongs to a split; a tuple goes where its first entry goes."""
    return tuple(v for v in values if _split_of(v[0] if isinstance(v, tuple) else v) == split)


def _said(name: str) -> str:
    """Pinyin of a name or a word, syllables separated by spaces."""
    return _NAME_READINGS.get(name) or " ".join(_looked_up(name))


@dataclass(frozen=True, slots=True)
class _Chang:
    """A place that starts with 长, and the person left when 长 belongs to the office before it."""

    place: str
    place_marked: str
    place_entities: tuple[tuple[str, str], ...]
    person: str
    person_marked: str


def _chang(rng: random.Random, split: Split) -> _Chang:
    head, known = rng.choice(_share(_CHANG, split))
    tail = rng.choice([t for t in _share(_TAILS, split) if not t.startswith(head)])
    place, person = f"长{head}{tail}", f"{head}{tail}"
    as_place = _PLACE_READINGS.get(head) or _said(head)
    as_surname = _SURNAME_READINGS.get(head) or _said(head)
    inner = ((f"长{head}", "LOC"),) if known else ()
    return _Chang(
        place,
        f"{place}(chang2 {as_place} {_said(tail)})",
        ((place, "LOC"), *inner),
        person,
        f"{person}({as_surname} {_said(tail)})",
    )


def _mayor(rng: random.Random, split: Split) -> _Phrase:
    """南京市|长江大桥 and 南京/市长|江大桥; the same for 省, 区 and 县."""
    suffix, areas = rng.choice(_OFFICES)
    area = rng.choice(_share(areas, split))
    chang = _chang(rng, split)
    return _Phrase(
        "mayor",
        "pronounced",
        (area, chang.place, chang.person),
        f"{area}{suffix}({_said(area)} {_said(suffix)})|{chang.place_marked}",
        ((area + suffix, "LOC"), *chang.place_entities),
        f"{area}({_said(area)})/{suffix}长({_said(suffix)} zhang3)|{chang.person_marked}",
        ((area, "LOC"), (chang.person, "PER")),
    )


def _downtown(rng: random.Random, split: Split) -> _Phrase:
    """南京|市区|长江路 and 南京市|区长|江路."""
    city = rng.choice(_share(_CITIES, split))
    chang = _chang(rng, split)
    return _Phrase(
        "downtown",
        "pronounced",
        (city, chang.place, chang.person),
        f"{city}/市区|{chang.place_marked}",
        ((city, "LOC"), *chang.place_entities),
        f"{city}市|区长(qu1 zhang3)/{chang.person_marked}",
        ((city + "市", "LOC"), (chang.person, "PER")),
    )


def _chief(rng: random.Random, split: Split) -> _Phrase:
    """中国队|长安路 and 中国/队长|安路; stations, factories and schools likewise."""
    suffix, said, label, owners, trades = rng.choice(_CHIEFS)
    owner = rng.choice(_share(owners, split))
    trade = rng.choice(_share(trades, split)) if trades else ""
    chang = _chang(rng, split)
    return _Phrase(
        "chief",
        "pronounced",
        (owner, chang.place, chang.person),
        f"{owner}{trade}{suffix}|{chang.place_marked}",
        ((owner + trade + suffix, label), (owner, "LOC"), *chang.place_entities),
        f"{owner} {trade}/{suffix}长({said} zhang3)|{chang.person_marked}".replace(" /", "/"),
        ((owner, "LOC"), (chang.person, "PER")),
    )


def _named_verb(rng: random.Random, split: Split) -> _Phrase:
    """南京/曾建桥: once (céng) built a bridge, or a person called Zēng Jiànqiáo."""
    known = [entry for entry in _NAMED_VERBS if _share(entry[3].split(), split)]
    character, verb, surname, given = rng.choice(known)
    city = rng.choice(_share(_CITIES, split))
    name = rng.choice(_share(given.split(), split))
    rest = _said(name)
    if character == "曾":
        first = f"{city}/曾(ceng2) {name}({rest})"
    else:
        first = f"{city}/{character}{name}({verb} {rest})"
    return _Phrase(
        "named-verb",
        "pronounced",
        (city, character + name),
        first,
        ((city, "LOC"),),
        f"{city}/{character}{name}({surname} {rest})",
        ((city, "LOC"), (character + name, "PER")),
    )


def _student(rng: random.Random, split: Split) -> _Phrase:
    """上海大学|生活动 and 上海|大学生活动."""
    city = rng.choice(_share(_CITIES, split))
    level = rng.choice(_LEVELS)
    if level == "大学" and rng.random() < 0.25:
        left, right = rng.choice(_share(_TOPICS_OVERLAP, split))
        first, second = f"{city}{level}|{left}", f"{city}|{level}生 {right}"
        topic = left.replace(" ", "")
    else:
        topic = rng.choice(_share(_TOPICS_UNIVERSITY, split))
        first, second = f"{city}{level}|生 {topic}", f"{city}|{level}生 {topic}"
    return _Phrase(
        "student",
        "paused",
        (city, topic),
        first,
        ((city + level, "ORG"), (city, "LOC")),
        second,
        ((city, "LOC"),),
    )


def _company(rng: random.Random, split: Split) -> _Phrase:
    """中国移动|业务, a company's, and 中国|移动业务, a country's."""
    area = rng.choice(_share(_STATES if rng.random() < 0.4 else _CITIES, split))
    industry = rng.choice(_share(_INDUSTRIES, split))
    asset = rng.choice(_share(_ASSETS, split))
    return _Phrase(
        "company",
        "paused",
        (area, industry, asset),
        f"{area}{industry}|{asset}",
        ((area + industry, "ORG"), (area, "LOC")),
        f"{area}|{industry} {asset}",
        ((area, "LOC"),),
    )


def _people(rng: random.Random, split: Split) -> _Phrase:
    """中国人民银行, one institution, and 中国|人民|银行."""
    area = rng.choice(_share(_STATES if rng.random() < 0.3 else _CITIES, split))
    what = rng.choice(_share(_PEOPLES, split))
    label = _PEOPLES_LABELS.get(what, "ORG")
    return _Phrase(
        "people",
        "paused",
        (area, what),
        f"{area}人民{what}",
        ((f"{area}人民{what}", label), (area, "LOC")),
        f"{area}|人民|{what}",
        ((area, "LOC"),),
    )


def _road(rng: random.Random, split: Split) -> _Phrase:
    """南京东路, one road, and 南京|东路, a road in the city."""
    city = rng.choice(_share(_CITIES, split))
    road = rng.choice(_share(_ROADS, split))
    return _Phrase(
        "road",
        "paused",
        (city, road),
        f"{city}{road}",
        ((city + road, "LOC"), (city, "LOC")),
        f"{city}|{road}",
        ((city, "LOC"), (road, "LOC")),
    )


def _citizen(rng: random.Random, split: Split) -> _Phrase:
    """南京市|民办学校 and 南京|市民|办学校."""
    city = rng.choice(_share(_CITIES, split))
    left, right = rng.choice(_share(_CITIZEN_DEEDS, split)).split()
    return _Phrase(
        "citizen",
        "paused",
        (city, right),
        f"{city}市|民{left} {right}",
        ((city + "市", "LOC"),),
        f"{city}|市民|{left} {right}",
        ((city, "LOC"),),
    )


def _given_name(rng: random.Random, split: Split) -> _Phrase:
    """王立新|书 and 王立|新书: where the name ends."""
    surname = rng.choice(_share(_SURNAMES, split))
    second, nouns = rng.choice(_share(_GIVEN_NOUNS, split))
    first = rng.choice([g for g in _share(_GIVEN_FIRST, split) if g != second])
    noun = rng.choice(nouns.split())
    read = _said(surname)
    given = _looked_up(first + second)
    whole = f"{surname}{first}{second}"
    return _Phrase(
        "given-name",
        "paused",
        (whole, surname + first),
        f"{whole}({read} {' '.join(given)})|{noun}",
        ((whole, "PER"),),
        f"{surname}{first}({read} {given[0]})|{second}{noun}",
        ((surname + first, "PER"),),
    )


def _together(rng: random.Random, split: Split) -> _Phrase:
    """张伟|和平路 and 张伟|和|平路: a road, or a second person."""
    surname = rng.choice(_share(_SURNAMES, split))
    first = rng.choice(_share(_GIVEN_FIRST, split))
    head, known = rng.choice(_share(_HE_PLACES, split))
    tail = rng.choice([t for t in _share(_TAILS, split) if not t.startswith(head)])
    inner = ((f"和{head}", "LOC"),) if known else ()
    friend = f"{surname}{first}({_said(surname)} {_said(first)})"
    rest = f"{_said(head)} {_said(tail)}"
    return _Phrase(
        "together",
        "paused",
        (surname + first, f"和{head}{tail}", head + tail),
        f"{friend}|和{head}{tail}(he2 {rest})",
        ((surname + first, "PER"), (f"和{head}{tail}", "LOC"), *inner),
        f"{friend} 和(he2)|{head}{tail}({rest})",
        ((surname + first, "PER"), (head + tail, "PER")),
    )


def _site(rng: random.Random, split: Split) -> _Phrase:
    """南京大桥, the bridge called so, and 南京|大桥, a bridge of the city."""
    city = rng.choice(_share(_CITIES, split))
    site = rng.choice(_share(_SITES, split))
    return _Phrase(
        "site",
        "paused",
        (city, site),
        f"{city}{site}",
        ((city + site, _SITE_LABELS.get(site, "LOC")), (city, "LOC")),
        f"{city}|{site}",
        ((city, "LOC"),),
    )


# Families in the order they take turns, and the carriers each fits.
_FAMILIES: tuple[tuple[Callable[[random.Random, Split], _Phrase], tuple[str, ...]], ...] = (
    (_mayor, _CARRIERS),
    (_student, _CARRIERS),
    (_chief, _CARRIERS),
    (_company, _CARRIERS),
    (_mayor, _CARRIERS),
    (_given_name, _CARRIERS),
    (_named_verb, _NEWS_CARRIERS),
    (_road, _CARRIERS),
    (_downtown, _CARRIERS),
    (_together, _CARRIERS),
    (_people, _CARRIERS),
    (_citizen, _CARRIERS),
    (_site, _CARRIERS),
)


def _spans(
    text: str, offset: int, phrase: str, entities: Sequence[tuple[str, str]]
) -> tuple[Span, ...] | None:
    """Offsets of the surfaces, or None where one occurs twice and the offset would be a guess."""
    spans: list[Span] = []
    for surface, label in entities:
        if phrase.count(surface) != 1:
            return None
        start = offset + phrase.index(surface)
        assert text[start : start + len(surface)] == surface
        spans.append(Span(start, start + len(surface), label))
    return tuple(sorted(spans))


def _embed(marked: str, carrier: str) -> tuple[tuple[Word, ...], int]:
    """The words of the carrier with the phrase inside, and the phrase's offset in characters."""
    before, after = carrier.split("{}")
    opening = read_words(before) if before else ()
    return (
        opening + read_words(marked + ("/" if after else "")) + read_words(after.lstrip("/")),
        sum(len(word.text) for word in opening),
    )


def _pair(phrase: _Phrase, carrier: str, split: Split, number: int) -> HomographPair | None:
    readings: list[Reading] = []
    for marked, entities in (
        (phrase.first, phrase.first_entities),
        (phrase.second, phrase.second_entities),
    ):
        words, offset = _embed(marked, carrier)
        text = "".join(word.text for word in words)
        surface = "".join(word.text for word in read_words(marked))
        spans = _spans(text, offset, surface, entities)
        if spans is None:
            return None
        readings.append(Reading(words, spans))
    first, second = readings
    if first.text != second.text:
        raise DataError(f"the readings of {phrase.family} differ: {first.text!r}, {second.text!r}")
    if first.entities == second.entities:
        return None
    return HomographPair(
        f"{split}-{number:04d}-{phrase.family}",
        phrase.family,
        phrase.kind,
        split,
        phrase.names,
        re.sub(r"[ /|]", "", carrier),
        first,
        second,
    )


def _stream(split: Split, seed: int) -> Iterator[HomographPair]:
    rng = random.Random(f"homographs:{split}:{seed}")
    seen: set[str] = set()
    number = 0
    misses = 0
    while misses < 2_000:
        make, carriers = _FAMILIES[number % len(_FAMILIES)]
        pair = _pair(make(rng, split), rng.choice(_share(carriers, split)), split, number)
        # The same phrase in another carrier is allowed once the lists have been gone through.
        if pair is None or pair.text in seen:
            misses += 1
            continue
        misses = 0
        seen.add(pair.text)
        yield pair
        number += 1


def homograph_pairs(
    count: int, *, seed: int = 0, split: Split = "train"
) -> tuple[HomographPair, ...]:
    """Generates pairs; the first n of a longer list are the shorter list.

    Args:
        count: How many.
        seed: Chooses among the combinations, never which split a name belongs to.
        split: Whose names and carriers to use.

    Returns:
        Distinct texts, the families taking turns.

    Raises:
        DataError: More pairs are wanted than the lists can make.
    """
    stream = _stream(split, seed)
    pairs = tuple(pair for pair, _ in zip(stream, range(count), strict=False))
    if len(pairs) < count:
        raise DataError(f"expected {count} homograph pairs, the lists make {len(pairs)}")
    return pairs
